"""Where to look for the resources that an actor may use, and for the actors who may. Pure.

The result covers every stored resource or user that `decide` would allow, and may cover others,
also some that are not stored: each candidate is still decided. It follows from allow rules alone:
deny rules and conditions only take away.

It relies on one fact of what is stored: a resource and those above it belong to the same
organization, or all of them to none (`administrator/integrity.py`).
"""

from dataclasses import dataclass

from pdp.decision.evaluate import reach_of
from pdp.decision.policy import Policy
from pdp.decision.principal import ANY_ORGANIZATION, Standing, holds
from pdp.model import ResourceFacts, ResourceRef, ToOrganizationRole


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
    allowing = _allowing_roles(policy, permission)
    wide = [grant for grant in standing.wide if grant.role in allowing]
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
        if any(grant.role in allowing and holds(grant, standing.now) for grant in grants)
    )
    return Search(
        resource_type,
        organizations=frozenset(organizations),
        roots=roots,
        organization_role=standing.organization_role,
        roles=allowing if standing.organization_role else frozenset(),
        # On a resource of another organization no grant on a resource reaches.
        root_organizations=frozenset((active, None)),
    )


@dataclass(frozen=True, slots=True)
class ActorSearch:
    """Which users to look at: those with a grant or a membership of one of these kinds."""

    roles: frozenset[str] = frozenset()
    """Only grants of these roles count."""
    organizations: frozenset[str] | None = frozenset()
    """In these, grants to users and to organization roles count; None: in all."""
    resources: frozenset[ResourceRef] = frozenset()
    """On these, grants to users count. Those that hold everywhere always do."""
    organization_roles: frozenset[str] = frozenset()
    """Members of the organizations with one of these count, whatever is granted there."""


def search_for_actors(
    policy: Policy, permission: str, chain: tuple[ResourceFacts, ...]
) -> ActorSearch:
    """Where users may be found who have a permission on the first resource of a chain."""
    if permission not in policy.permissions or not all(map(policy.accepts, chain)):
        return ActorSearch()
    allowing = _allowing_roles(policy, permission)
    owners = {facts.resource.organization_id for facts in chain} - {None}
    organizations: frozenset[str] | None
    if owners or (chain and not policy.has_no_tenants(chain[0].resource.type)):
        organizations = frozenset(owner for owner in owners if owner is not None)
    else:
        organizations = None
    granted = [grant for _, grant in policy.grants.items()]
    for facts in chain:
        granted += facts.role_grants
    return ActorSearch(
        allowing,
        organizations,
        frozenset(ResourceRef(one.resource.type, one.resource.id) for one in chain),
        frozenset(
            grant.subject.organization_role
            for grant in granted
            if grant.role in allowing and isinstance(grant.subject, ToOrganizationRole)
        ),
    )


def _allowing_roles(policy: Policy, permission: str) -> frozenset[str]:
    """The roles of which a rule, own or inherited, allows the permission."""
    return frozenset(
        name for name, _ in policy.roles.items() if policy.rules_of(name, permission).allow
    )
