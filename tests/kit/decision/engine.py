"""A world as the pure core sees it: its policy, its facts, and a decision from them."""

from pdp.decision import Policy, Principal, build_policy, decide, resolve_principal
from pdp.model import (
    Decision,
    InOrganization,
    OnResource,
    OrganizationFacts,
    Question,
    Resource,
    ResourceFacts,
    ResourceRef,
    ToOrganizationRole,
    ToUser,
    UserFacts,
    VerifiedToken,
)
from tests.kit.decision.reference import Asked, World


def policy_of(world: World) -> Policy:
    return build_policy(
        1,
        world.permissions,
        world.roles,
        world.rules,
        world.grants,
        organization_permissions=world.organization_permissions,
        resource_types=world.resource_types,
    )


def principal_of(world: World, policy: Policy, token: VerifiedToken, now: float) -> Principal:
    user = user_facts(world, token.actor.user_id)
    active = token.actor.organization_id
    organization = None
    if active is not None:
        grants = [grant for grant in world.grants if grant.scope == InOrganization(active)]
        organization = OrganizationFacts(
            active,
            tuple(grant for grant in grants if isinstance(grant.subject, ToOrganizationRole)),
        )
    return resolve_principal(policy, token, user, organization, now)


def user_facts(world: World, user_id: str) -> UserFacts | None:
    user = next((user for user in world.users if user.id == user_id), None)
    if user is None:
        return None
    return UserFacts(
        user,
        {
            organization: role
            for (organization, member), role in world.memberships.items()
            if member == user_id
        },
        tuple(grant for grant in world.grants if grant.subject == ToUser(user_id)),
        frozenset(session for session, owner in world.revoked if owner == user_id),
    )


def chain_of(world: World, ref: ResourceRef | None) -> tuple[ResourceFacts, ...]:
    return tuple(resource_facts(world, resource) for resource in world.chain(ref))


def resource_facts(world: World, resource: Resource) -> ResourceFacts:
    ref = ResourceRef(resource.type, resource.id)
    scope = OnResource(ref)
    return ResourceFacts(
        resource,
        tuple(
            grant
            for grant in world.grants
            if isinstance(grant.subject, ToOrganizationRole) and grant.scope == scope
        ),
        stored=ref not in world.not_stored,
    )


def ask(world: World, asked: Asked, policy: Policy | None = None) -> Decision:
    """The core's decision."""
    policy = policy or policy_of(world)
    chain = chain_of(world, asked.resource)
    question = Question(asked.permission, chain[0].resource if chain else None, asked.context)
    return decide(principal_of(world, policy, asked.token, asked.now), question, chain)
