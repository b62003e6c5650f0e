"""Random policy documents with facts: small, so that owners, tenants and scopes meet often."""

from dataclasses import replace
from random import Random
from typing import Any

from pdp.document import PolicyDocument
from pdp.model import (
    EVERYWHERE,
    Effect,
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

NOW = 100.0
PERMISSIONS = ["course:edit", "course:view", "lesson:view"]
PATTERNS = [*PERMISSIONS, *PERMISSIONS, "course:*", "*"]
ROLES = ["A", "B"]
# "o1" is a user too, whose id equals that of an organization.
USERS = ["u1", "u2", "u3", "u4", "o1"]
ORGANIZATIONS = ["o1", "o2"]
ORGANIZATION_ROLES = ["org:admin", "org:member"]
REFS = [ResourceRef("course", id_) for id_ in ("1", "2", "3", "u1")] + [
    ResourceRef("lesson", id_) for id_ in ("1", "2", "3")
]
CONDITIONS = [
    "resource.attributes.owner == actor.id",
    "resource.attributes.owner == actor.id",
    "resource.attributes.owner != actor.id",
    "actor.id in resource.attributes.editors",
    "actor.id in resource.attributes.seats",
    "resource.id == actor.id",
    "resource.attributes.owner == actor.attributes.manager",
    "actor.attributes.manager == actor.id",
    "resource.attributes.owner == 'u2' || actor.id == 'u3'",
    "resource.attributes.owner == resource.attributes.editors[0]",
    "resource.attributes.seats.u1 == true && actor.id == resource.attributes.owner",
    "resource.attributes.owner.startsWith('u')",
    "actor.id < resource.attributes.owner",
    "actor.organization == resource.organization",
    "resource.organization == 'o2' && actor.id != 'u1'",
    "actor.organization_role == 'org:admin'",
    "actor.attributes.department == 'office'",
    "has(context.place)",
    "actor.id in [resource.attributes.owner, 'u4']",
    "resource.attributes == {'owner': actor.id}",
]


def random_document(chance: Random) -> PolicyDocument:
    """A policy with facts."""
    return PolicyDocument(
        permissions=tuple(Permission(name) for name in PERMISSIONS if chance.random() < 0.95),
        resource_types=tuple(
            ResourceType(name, chance.choice(list(Tenancy)), chance.random() < 0.3)
            for name in ("course", "lesson")
            if chance.random() < 0.3
        ),
        roles=tuple(
            Role(name, inherits=tuple(role for role in ROLES if chance.random() < 0.2))
            for name in ROLES
        ),
        rules=tuple(_rule(chance, f"r{index}") for index in range(chance.randint(2, 6))),
        grants=tuple(_grant(chance, f"g{index}") for index in range(chance.randint(4, 9))),
        users=tuple(_user(chance, name) for name in USERS if chance.random() < 0.95),
        organizations=tuple(Organization(name) for name in ORGANIZATIONS),
        memberships=tuple(
            Membership(organization, user, chance.choice(ORGANIZATION_ROLES))
            for organization in ORGANIZATIONS
            for user in USERS
            if chance.random() < 0.6
        ),
        resources=tuple(
            _resource(chance, index) for index in range(len(REFS)) if chance.random() < 0.8
        ),
    )


def changed_document(chance: Random, document: PolicyDocument) -> PolicyDocument:
    """The document with another rule, mostly; sometimes with other facts."""
    other = random_document(chance)
    kind = chance.random()
    if kind < 0.6:
        rules = list(document.rules or ())
        rules[chance.randrange(len(rules))] = _rule(chance, "r9")
        return replace(document, rules=tuple(rules))
    section = chance.choice(
        ("permissions", "resource_types", "roles", "grants", "users", "memberships", "resources")
    )
    return replace(document, **{section: getattr(other, section)})


def _rule(chance: Random, rule_id: str) -> Rule:
    effect = chance.choice([Effect.ALLOW, Effect.ALLOW, Effect.ALLOW, Effect.DENY])
    condition = chance.choice([*[""] * 6, *CONDITIONS])
    return Rule(rule_id, chance.choice(ROLES), effect, chance.choice(PATTERNS), condition)


def _grant(chance: Random, grant_id: str) -> Grant:
    subject: Subject = chance.choice(
        [*map(ToUser, USERS[:3]), *map(ToOrganizationRole, ORGANIZATION_ROLES * 2)]
    )
    scope: Scope = chance.choice(
        [EVERYWHERE, EVERYWHERE, *map(InOrganization, ORGANIZATIONS), *map(OnResource, REFS[:3])]
    )
    ends = chance.choice([None, None, None, 50.0, 150.0])
    return Grant(grant_id, chance.choice(ROLES), subject, scope, None, ends)


def _user(chance: Random, name: str) -> User:
    attributes: dict[str, Any] = {}
    if chance.random() < 0.6:
        attributes["manager"] = chance.choice(USERS)
    if chance.random() < 0.6:
        attributes["department"] = chance.choice(["office", "home"])
    status = UserStatus.DISABLED if chance.random() < 0.1 else UserStatus.ACTIVE
    return User(name, status=status, attributes=attributes)


def _resource(chance: Random, index: int) -> Resource:
    attributes: dict[str, Any] = {}
    if chance.random() < 0.8:
        attributes["owner"] = chance.choice([*USERS, "somebody"])
    if chance.random() < 0.6:
        attributes["editors"] = [chance.choice(USERS) for _ in range(chance.randint(1, 3))]
    if chance.random() < 0.4:
        attributes["seats"] = {chance.choice(USERS): chance.choice([True, "u2"]) for _ in range(2)}
    ref = REFS[index]
    parent = chance.choice([None, None, *REFS[:index]])  # only earlier ones: never a circle
    organization = chance.choice([None, "o1", "o1", "o2"])
    return Resource(ref.type, ref.id, organization, parent, attributes)
