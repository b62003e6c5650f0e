"""Where to look for the resources that an actor may use. Pure.

The result covers every stored resource that `decide` would allow, and may cover others, also some
that are not stored: each candidate is still decided. It follows from allow rules alone: deny rules
and conditions only take away.

It relies on one fact of what is stored: a resource and those above it belong to the same
organization, or all of them to none (`administrator/integrity.py`).
"""

from dataclasses import dataclass

from pdp.decision.decide import reach_of
from pdp.decision.standing import ANY_ORGANIZATION, Standing, holds
from pdp.model import ResourceRef


@dataclass(frozen=True, slots=True)
class Search:
    """Which stored resources of one type to look at."""

    resource_type: str
    everything: bool = False
    """All of them; the other fields then do not matter."""
    organizations: frozenset[str | None] = frozenset()
    """All that belong to one of these; None: to no organization."""
    roots: frozenset[ResourceRef] = frozenset()
    """These and what is below them, if they belong to one of `root_organizations`."""
    organization_role: str = ""
    roles: frozenset[str] = frozenset()
    """As `roots`: the resources on which one of these roles is granted to the organization role."""
    root_organizations: frozenset[str | None] = frozenset()


def search_for(standing: Standing, permission: str, resource_type: str) -> Search:
    """Where the actor may find resources of a type on which they have the permission."""
    nothing = Search(resource_type)
    policy = standing.policy
    if standing.refusal is not None or permission not in policy.permissions:
        return nothing

    def allows(role: str) -> bool:
        return bool(policy.rules_of(role, permission).allow)

    wide = [grant for grant in standing.wide if allows(grant.role)]
    if any(reach_of(grant) == ANY_ORGANIZATION for grant in wide):
        return Search(resource_type, everything=True)
    active = standing.token.actor.organization_id
    tenantless = policy.has_no_tenants(resource_type)
    organizations: set[str | None] = set()
    if wide and active is not None:
        organizations.add(active)
    if wide and tenantless:
        organizations.add(None)
    roots = frozenset(
        ref
        for ref, grants in standing.on_resources.items()
        if any(allows(grant.role) and holds(grant, standing.now) for grant in grants)
    )
    role = standing.organization_role
    roles = frozenset(name for name, _ in policy.roles.items() if role and allows(name))
    return Search(
        resource_type,
        organizations=frozenset(organizations),
        roots=roots,
        organization_role=role,
        roles=roles,
        # On a resource of another organization no grant on a resource reaches.
        root_organizations=frozenset((active, None)),
    )
