"""Narrows the search for resources that an actor may use, and for actors who may use a resource.
Pure.

The result covers every stored resource or user that `decide` would allow. It may cover others, even
some that are not stored: each candidate is still decided. It depends on allow rules alone, since
deny rules and conditions only remove candidates.

It relies on an invariant of the store: a resource and its ancestors all belong to the same
organization, or all to none (`administrator/integrity.py`).
"""

from dataclasses import dataclass

from pdp.decision.evaluate import reach_of
from pdp.decision.policy import Policy
from pdp.decision.principal import ANY_ORGANIZATION, Principal, holds
from pdp.model import ResourceFacts, ResourceRef, ToOrganizationRole


@dataclass(frozen=True, slots=True)
class Search:
    """The stored resources of a type that may be allowed."""

    resource_type: str
    everything: bool = False
    """All resources of the type; the other fields do not matter then."""
    organizations: frozenset[str | None] = frozenset()
    """All resources of these organizations; None: those without an organization."""
    roots: frozenset[ResourceRef] = frozenset()
    """These and their descendants, if they belong to one of `root_organizations`."""
    organization_role: str = ""
    roles: frozenset[str] = frozenset()
    """Like `roots`: the resources on which one of these roles is granted to the organization
    role."""
    root_organizations: frozenset[str | None] = frozenset()


def search_for(principal: Principal, permission: str, resource_type: str) -> Search:
    """The resources of a type on which the actor may have the permission."""
    nothing = Search(resource_type)
    policy = principal.policy
    if principal.refusal is not None or permission not in policy.permissions:
        return nothing
    allowing = _allowing_roles(policy, permission)
    wide = [grant for grant in principal.wide if grant.role in allowing]
    if any(reach_of(grant) == ANY_ORGANIZATION for grant in wide):
        return Search(resource_type, everything=True)
    active = principal.token.actor.organization_id
    tenantless = policy.has_no_tenants(resource_type)
    organizations: set[str | None] = set()
    if wide and active is not None:
        organizations.add(active)
    if wide and tenantless:
        organizations.add(None)
    roots = frozenset(
        ref
        for ref, grants in principal.on_resources.items()
        if any(grant.role in allowing and holds(grant, principal.now) for grant in grants)
    )
    return Search(
        resource_type,
        organizations=frozenset(organizations),
        roots=roots,
        organization_role=principal.organization_role,
        roles=allowing if principal.organization_role else frozenset(),
        # A grant on a resource does not reach it if it belongs to another organization.
        root_organizations=frozenset((active, None)),
    )


@dataclass(frozen=True, slots=True)
class ActorSearch:
    """The users who may be allowed: those with a grant or a membership of one of these kinds."""

    roles: frozenset[str] = frozenset()
    """Only grants of these roles count."""
    organizations: frozenset[str] | None = frozenset()
    """Grants to users and to organization roles count in these organizations; None: in all."""
    resources: frozenset[ResourceRef] = frozenset()
    """Grants to users count on these resources. Grants that hold everywhere always count."""
    organization_roles: frozenset[str] = frozenset()
    """Members of the organizations with one of these roles count without a grant."""


def search_for_actors(
    policy: Policy, permission: str, chain: tuple[ResourceFacts, ...]
) -> ActorSearch:
    """The users who may have a permission on the first resource of a chain."""
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
        frozenset(ResourceRef(facts.resource.type, facts.resource.id) for facts in chain),
        frozenset(
            grant.subject.organization_role
            for grant in granted
            if grant.role in allowing and isinstance(grant.subject, ToOrganizationRole)
        ),
    )


def _allowing_roles(policy: Policy, permission: str) -> frozenset[str]:
    """The roles with a rule, own or inherited, that allows the permission."""
    return frozenset(
        name for name, _ in policy.roles.items() if policy.rules_of(name, permission).allow
    )
