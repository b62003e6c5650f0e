"""Random worlds for queries: few names, so that grants, trees, organizations and rules meet often.

What is drawn may be stored together: a resource belongs to the organization of the one above it.
"""

import time
from dataclasses import dataclass
from random import Random
from typing import Any

from pdp.model import (
    EVERYWHERE,
    Effect,
    Entity,
    Grant,
    InOrganization,
    Membership,
    OnResource,
    Organization,
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
)
from tests.kit.access_queries.service import token_without_claims

PERMISSIONS = ["course:edit", "course:view", "lesson:view"]
TYPES = ["course", "lesson"]
USERS = ["user_1", "user_2"]
ORGANIZATIONS = ["org_1", "org_2"]
ORGANIZATION_ROLES = ["org:admin", "org:member"]
ROLES = ["A", "B"]
IDS = ["", "-", "1", "10", "2", "A", "Z", "a", "a/b", "é", "\U0001f600", "zz"]
"""Their bytewise order is not the one of any language."""
CONDITIONS = [
    "resource.attributes.owner == actor.id",
    "resource.attributes.owner != actor.id",
    "resource.attributes.level > 3.0",
    "!(resource.attributes.level > 3.0)",
    "has(resource.attributes.owner)",
    "resource.organization == actor.organization",
    "'free' in resource.attributes.tags",
    "context.place == 'office'",
]


@dataclass(frozen=True)
class World:
    """The stored entities and the actor."""

    entities: list[Entity]
    tokens: list[str]
    resources: list[Resource]


def random_world(random: Random) -> World:
    resources = _resources(random)
    refs = [ResourceRef(one.type, one.id) for one in resources]
    refs += [ResourceRef("course", "not stored")]
    entities: list[Entity] = [
        *map(Permission, PERMISSIONS),
        *_roles(random),
        *(_rule(random, f"r{number}") for number in range(random.randint(2, 7))),
        *(
            ResourceType(type_, random.choice(list(Tenancy)), random.random() < 0.3)
            for type_ in TYPES
            if random.random() < 0.3
        ),
        *map(Organization, ORGANIZATIONS),
        *(
            User(user, status=UserStatus.DISABLED if random.random() < 0.05 else UserStatus.ACTIVE)
            for user in USERS
            if random.random() < 0.95
        ),
        *(
            Membership(organization, user, random.choice(ORGANIZATION_ROLES))
            for organization in ORGANIZATIONS
            for user in USERS
            if random.random() < 0.9
        ),
        *(_grant(random, f"g{number}", refs) for number in range(random.randint(2, 8))),
        *resources,
    ]
    others = [(user, active) for user in USERS for active in (None, *ORGANIZATIONS)]
    actors = [("user_1", "org_1"), ("user_1", None), random.choice(others)]
    return World(entities, [token_without_claims(*actor) for actor in actors], resources)


def _resources(random: Random) -> list[Resource]:
    """Parents before children, at most four levels."""
    found: list[Resource] = []
    organizations = random.choice([["org_1"], [None, "org_1", "org_1", "org_2"]])
    for type_ in TYPES:
        for id_ in random.sample(IDS[1:], random.randint(2, 8)):
            parent = random.choice([None, *found]) if random.random() < 0.6 else None
            found.append(
                Resource(
                    type_,
                    id_,
                    random.choice(organizations) if parent is None else parent.organization_id,
                    None if parent is None else ResourceRef(parent.type, parent.id),
                    _attributes(random),
                )
            )
    return found


def _attributes(random: Random) -> dict[str, Any]:
    drawn = {
        "owner": ["user_1", "user_1", "user_2", None, 1.0],
        "level": [1.0, 5.0, "5", None],
        "tags": [[], ["free"], ["paid", "free"], "free"],
    }
    return {name: random.choice(values) for name, values in drawn.items() if random.random() < 0.7}


def _roles(random: Random) -> list[Role]:
    return [
        Role(name, inherits=tuple(one for one in ROLES[:index] if random.random() < 0.3))
        for index, name in enumerate(ROLES)
    ]


def _rule(random: Random, rule_id: str) -> Rule:
    return Rule(
        rule_id,
        random.choice(ROLES),
        random.choice([*[Effect.ALLOW] * 6, Effect.DENY]),
        random.choice([*PERMISSIONS, *PERMISSIONS, "course:*", "*"]),
        random.choice(["", *CONDITIONS]) if random.random() < 0.6 else "",
    )


def _grant(random: Random, grant_id: str, refs: list[ResourceRef]) -> Grant:
    subject: Subject = random.choice(
        [*[ToUser("user_1")] * 4, ToUser("user_2"), *map(ToOrganizationRole, ORGANIZATION_ROLES)]
    )
    scope: Scope = random.choice(
        [
            EVERYWHERE,
            InOrganization("org_1"),
            *map(InOrganization, ORGANIZATIONS),
            *(OnResource(random.choice(refs)) for _ in range(6)),
        ]
    )
    now = time.time()
    begins = random.choice([*[None] * 6, now - 3600, now + 3600])
    ends = random.choice([*[None] * 6, now - 1800, now + 1800])
    return Grant(grant_id, random.choice(ROLES), subject, scope, begins, ends)
