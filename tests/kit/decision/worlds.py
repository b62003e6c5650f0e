"""Random worlds and questions, small enough that rules, scopes and tenants meet often."""

from random import Random
from typing import Any, TypeVar

from pdp.model import (
    EVERYWHERE,
    Actor,
    Effect,
    Grant,
    InOrganization,
    OnResource,
    Permission,
    Resource,
    ResourceRef,
    ResourceType,
    Role,
    Rule,
    Scope,
    Subject,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
    VerifiedToken,
)
from tests.kit.decision.reference import CONDITIONS, Asked, World

T = TypeVar("T")

PERMISSIONS = ["course:edit", "course:view", "lesson:view"]
UNDECLARED = "course:burn"
PATTERNS = [*PERMISSIONS, "course:*", "lesson:*", "*"]
ROLES = ["A", "B", "C", "D"]
USERS = ["u1", "u2"]
ORGANIZATIONS = ["o1", "o2"]
ORGANIZATION_ROLES = ["org:admin", "org:member"]
REFS = [ResourceRef("course", "1"), ResourceRef("course", "2"), ResourceRef("lesson", "1")]
NOW = [50.0, 100.0, 150.0]


def random_world(random: Random) -> World:
    resources = {}
    organizations = random.choice([[None], [None, "o1", "o1", "o2"], [None, "o1", "o1", "o2"]])
    for index, ref in enumerate(REFS):
        above = random.choice([None, *REFS[:index]])  # only earlier ones: never a circle
        resources[ref] = Resource(
            ref.type,
            ref.id,
            random.choice(organizations),
            above,
            random_attributes(random),
        )
    return World(
        permissions=[Permission(name) for name in PERMISSIONS],
        roles=[
            # Circles too: they are refused when written, and must be harmless all the same.
            Role(name, inherits=tuple(role for role in ROLES if random.random() < 0.2))
            for name in ROLES
        ],
        rules=[random_rule(random, f"r{index}") for index in range(random.randint(0, 7))],
        grants=[random_grant(random, f"g{index}") for index in range(random.randint(0, 6))],
        users=[
            User(
                user,
                status=UserStatus.DISABLED if random.random() < 0.05 else UserStatus.ACTIVE,
                attributes=maybe(random, "department", ["office", "home", 1.0]),
            )
            for user in USERS
            if random.random() < 0.95
        ],
        memberships={
            (organization, user): random.choice(ORGANIZATION_ROLES)
            for organization in ORGANIZATIONS
            for user in USERS
            if random.random() < 0.85
        },
        organization_permissions={
            role: random.choice([(), ("org:course:publish",), ("org:course:read",)])
            for role in ORGANIZATION_ROLES
            if random.random() < 0.8
        },
        revoked={("s2", "u1")},
        resources=resources,
        not_stored={ref for ref in REFS if random.random() < 0.3},
        resource_types=[
            random_resource_type(random, name)
            for name in ("course", "lesson")
            if random.random() < 0.3
        ],
    )


def random_resource_type(random: Random, name: str) -> ResourceType:
    return ResourceType(name, random.choice(list(Tenancy)), random.random() < 0.3)


def random_rule(random: Random, rule_id: str) -> Rule:
    return Rule(
        rule_id,
        random.choice(ROLES),
        random.choice([Effect.ALLOW, Effect.ALLOW, Effect.DENY]),
        random.choice(PATTERNS),
        random.choice(["", "", *CONDITIONS]),
    )


def random_grant(random: Random, grant_id: str) -> Grant:
    subject: Subject = random.choice(
        [*map(ToUser, USERS), ToUser("u1"), *map(ToOrganizationRole, ORGANIZATION_ROLES)]
    )
    scope: Scope = random.choice(
        [EVERYWHERE, EVERYWHERE, *map(InOrganization, ORGANIZATIONS), *map(OnResource, REFS)]
    )
    begins = random.choice([None, None, None, 60.0, 100.0])
    ends = random.choice([None, None, None, 100.0, 140.0])
    return Grant(grant_id, random.choice(ROLES), subject, scope, begins, ends)


def random_question(random: Random) -> Asked:
    token = VerifiedToken(
        Actor(
            random.choice(["u1", "u1", "u1", "u2", "nobody"]),
            random.choice(["s1", "s1", "s1", "s1", "s2"]),
            random.choice([None, "o1", "o1", "o2", "o3"]),
            random.choice([None, "u9"]),
        ),
        issuer="https://issuer",
        key_id="key",
        expires_at=random.choice([120.0, 1000.0]),
        claims={},
        claimed_permissions=random.choice([(), ("course:edit",)]),
        second_factor_minutes=random.choice([None, 5.0, 20.0]),
    )
    return Asked(
        token,
        random.choice([*PERMISSIONS * 3, UNDECLARED]),
        random.choice([None, *REFS, *REFS]),
        maybe(random, "place", ["office", "home", True]) | maybe(random, "flag", [True, False]),
        random.choice(NOW),
    )


def random_attributes(random: Random) -> dict[str, Any]:
    return (
        maybe(random, "owner", ["u1", "u1", "u2", 1.0])
        | maybe(random, "level", [1.0, 5.0, "5", None])
        | maybe(random, "archived", [True, False, "true"])
        | maybe(random, "tags", [[], ["free"], ["paid", "free"], ["paid"], "free"])
    )


def maybe(random: Random, key: str, values: list[T]) -> dict[str, T]:
    """The key with one of the values, or nothing."""
    return {key: random.choice(values)} if random.random() < 0.75 else {}
