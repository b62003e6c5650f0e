"""A slow, obviously right evaluator: the semantics written down once more, straight from the words.

It shares nothing with `pdp.decision` but the vocabulary: no index, no memo, no CEL. Conditions are
a small known family whose truth is computed here in Python.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pdp.model import (
    EVERYWHERE,
    Decision,
    Effect,
    Grant,
    InOrganization,
    OnResource,
    Permission,
    Reason,
    Resource,
    ResourceRef,
    ResourceType,
    Role,
    Rule,
    Tenancy,
    ToUser,
    User,
    UserStatus,
    VerifiedToken,
)

MISSING = Reason.ATTRIBUTE_MISSING
FAILED = Reason.CONDITION_FAILED
Truth = bool | Reason


@dataclass
class World:
    """Everything there is, as flat lists."""

    permissions: list[Permission] = field(default_factory=list)
    roles: list[Role] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    users: list[User] = field(default_factory=list)
    memberships: dict[tuple[str, str], str] = field(default_factory=dict)
    """(organization, user) -> organization role."""
    organization_permissions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Organization role -> permissions that it carries; others carry who knows what."""
    revoked: set[tuple[str, str]] = field(default_factory=set)
    """(session, user)."""
    resources: dict[ResourceRef, Resource] = field(default_factory=dict)
    """Stored ones, and those that only a question describes."""
    not_stored: set[ResourceRef] = field(default_factory=set)
    resource_types: list[ResourceType] = field(default_factory=list)

    def type_of(self, resource: Resource) -> ResourceType:
        """The declaration of a resource's type."""
        said = [
            resource_type
            for resource_type in self.resource_types
            if resource_type.name == resource.type
        ]
        return said[0] if said else ResourceType(resource.type)

    def chain(self, ref: ResourceRef | None) -> list[Resource]:
        """A resource and all above it."""
        found = []
        while ref is not None:
            resource = self.resources[ref]
            found.append(resource)
            ref = resource.parent
        return found


@dataclass(frozen=True)
class Asked:
    """One question with all that it depends on."""

    token: VerifiedToken
    permission: str
    resource: ResourceRef | None
    context: Mapping[str, Any]
    now: float


@dataclass(frozen=True)
class Facts:
    """The values that a condition may read."""

    asked: Asked
    actor_attributes: Mapping[str, Any]
    organization_role: str
    organization_permissions: tuple[str, ...] | None
    resource: Resource | None
    resource_organization: str | None
    """None: not known, or no resource."""


# --- conditions -----------------------------------------------------------------------------------


def of_resource(facts: Facts, key: str) -> Any:
    if facts.resource is None or key not in facts.resource.attributes:
        return MISSING
    return facts.resource.attributes[key]


def both(left: Truth, right: Truth) -> Truth:
    """CEL's `&&`: false settles it, whatever the other side is."""
    if left is False or right is False:
        return False
    return left if left is not True else right


def either(left: Truth, right: Truth) -> Truth:
    """CEL's `||`: true settles it, whatever the other side is."""
    if left is True or right is True:
        return True
    return left if left is not False else right


def opposite(value: Truth) -> Truth:
    return not value if isinstance(value, bool) else value


def same(left: Any, right: Any) -> Truth:
    if isinstance(left, Reason):
        return left
    return type(left) is type(right) and left == right


def owns(facts: Facts) -> Truth:
    return same(of_resource(facts, "owner"), facts.asked.token.actor.user_id)


def above_three(facts: Facts) -> Truth:
    level = of_resource(facts, "level")
    if isinstance(level, Reason):
        return level
    return level > 3.0 if isinstance(level, float) else FAILED


def archived(facts: Facts) -> Truth:
    return same(of_resource(facts, "archived"), True)


def from_office(facts: Facts) -> Truth:
    return same(facts.asked.context.get("place", MISSING), "office")


def flagged(facts: Facts) -> Truth:
    return "flag" in facts.asked.context and same(facts.asked.context["flag"], True)


def is_organization_admin(facts: Facts) -> Truth:
    return facts.organization_role == "org:admin"


def in_same_organization(facts: Facts) -> Truth:
    if facts.resource_organization is None:
        return MISSING
    return (facts.asked.token.actor.organization_id or "") == facts.resource_organization


def has_archived(facts: Facts) -> Truth:
    return facts.resource is not None and "archived" in facts.resource.attributes


def tagged(facts: Facts) -> Truth:
    tags = of_resource(facts, "tags")
    if isinstance(tags, Reason):
        return tags
    if not isinstance(tags, list):
        return FAILED
    return any(tag == "free" for tag in tags)


def may_publish(facts: Facts) -> Truth:
    permissions = facts.organization_permissions
    return MISSING if permissions is None else "org:course:publish" in permissions


def fresh(facts: Facts) -> Truth:
    minutes = facts.asked.token.second_factor_minutes
    return MISSING if minutes is None else minutes < 10.0


CONDITIONS: dict[str, Callable[[Facts], Truth]] = {
    "true": lambda _: True,
    "1 / 0 == 1": lambda _: FAILED,
    "resource.attributes.owner == actor.id": owns,
    "resource.attributes['owner'] != actor.id": lambda facts: opposite(owns(facts)),
    "resource.attributes.level > 3.0": above_three,
    "resource.attributes.archived == true": archived,
    "has(resource.attributes.archived) && resource.attributes.archived == true": lambda facts: both(
        has_archived(facts), archived(facts)
    ),
    "!has(resource.attributes.archived)": lambda facts: opposite(has_archived(facts)),
    "context.place == 'office'": from_office,
    "has(context.flag) && context.flag == true": flagged,
    "!(resource.attributes.owner == actor.id) && context.place == 'office'": lambda facts: both(
        opposite(owns(facts)), from_office(facts)
    ),
    "context.place == 'office' || actor.organization_role == 'org:admin'": lambda facts: either(
        from_office(facts), is_organization_admin(facts)
    ),
    "resource.attributes.level > 3.0 && resource.attributes.archived == true": lambda facts: both(
        above_three(facts), archived(facts)
    ),
    "actor.organization == resource.organization": in_same_organization,
    "resource.attributes.tags.exists(tag, tag == 'free')": tagged,
    "'course:edit' in actor.claimed_permissions": lambda facts: (
        "course:edit" in facts.asked.token.claimed_permissions
    ),
    "'org:course:publish' in actor.organization_permissions": may_publish,
    "actor.second_factor_minutes < 10.0": fresh,
    "now < timestamp('1970-01-01T00:01:40Z')": lambda facts: facts.asked.now < 100,
    "actor.impersonator == ''": lambda facts: facts.asked.token.actor.impersonator_id is None,
    "actor.attributes.department == context.place": lambda facts: (
        MISSING
        if "department" not in facts.actor_attributes or "place" not in facts.asked.context
        else same(facts.actor_attributes["department"], facts.asked.context["place"])
    ),
}
"""Source -> truth. Empty means always and is not listed."""


# --- decisions ------------------------------------------------------------------------------------


def decide(world: World, asked: Asked) -> Decision:  # noqa: PLR0911, PLR0912, PLR0915  # read top to bottom
    """The decision, field for field."""
    actor = asked.token.actor
    chain = world.chain(asked.resource)
    organizations = [entry.organization_id for entry in chain if entry.organization_id is not None]
    owner = organizations[0] if organizations else None

    def denied(reason: Reason, until: float | None, *by: str) -> Decision:
        rule, grant = by or (None, None)
        return Decision(Effect.DENY, reason, rule, grant, owner, until)

    until: float | None = asked.token.expires_at
    user = next((user for user in world.users if user.id == actor.user_id), None)
    if user is None:
        return denied(Reason.ACTOR_UNKNOWN, until)
    if user.status is UserStatus.DISABLED:
        return denied(Reason.ACTOR_DISABLED, until)
    if (actor.session_id, actor.user_id) in world.revoked:
        return denied(Reason.SESSION_REVOKED, until)
    organization_role, organization_permissions = "", ()
    if actor.organization_id is not None:
        key = (actor.organization_id, actor.user_id)
        if key not in world.memberships:
            return denied(Reason.MEMBERSHIP_UNKNOWN, until)
        organization_role = world.memberships[key]
        organization_permissions = world.organization_permissions.get(organization_role)

    if asked.permission not in [permission.name for permission in world.permissions]:
        return denied(Reason.PERMISSION_UNKNOWN, until)
    for entry in chain:
        if (
            world.type_of(entry).stored_required
            and ResourceRef(entry.type, entry.id) in world.not_stored
        ):
            return denied(Reason.RESOURCE_UNKNOWN, until)
    until = min([asked.token.expires_at, *edges(world, asked, chain, organization_role)])

    foreign = any(organization != actor.organization_id for organization in organizations)
    resource = chain[0] if chain else None
    without_tenants = resource is not None and world.type_of(resource).tenancy is Tenancy.NONE
    unknown = resource is not None and owner is None and not without_tenants
    readable = "" if owner is None and without_tenants else owner
    facts = Facts(
        asked, user.attributes, organization_role, organization_permissions, resource, readable
    )
    pairs = sorted(
        (
            (rule, grant)
            for grant in world.grants
            if is_to_actor(grant, asked, organization_role) and holds(grant, asked.now)
            for rule in world.rules
            if rule.role in closure(world, grant.role) and matches(rule, asked.permission)
        ),
        key=lambda pair: (pair[0].id, pair[1].id),
    )
    evaluated: list[str] = []

    def truth(rule: Rule) -> Truth:
        evaluated.append(rule.condition)
        return CONDITIONS[rule.condition](facts) if rule.condition else True

    def reusable() -> float | None:
        return None if any("now" in source.split() for source in evaluated) else until

    failures = []
    for rule, grant in pairs:
        if rule.effect is Effect.DENY and reaches_to_deny(
            grant, asked, chain, organizations, unknown=unknown
        ):
            outcome = truth(rule)
            if outcome is True:
                return denied(Reason.DENIED_BY_RULE, reusable(), rule.id, grant.id)
            if outcome is not False:
                failures.append((outcome, rule, grant))
    if failures:
        outcome, rule, grant = failures[0]
        return denied(outcome, reusable(), rule.id, grant.id)

    unmet = []
    if_known = []
    for rule, grant in pairs:
        if rule.effect is not Effect.ALLOW:
            continue
        if unknown and depends_on_organization(grant):
            if reaches_to_allow(grant, asked, chain, foreign=False):
                if_known.append((rule, grant))
        elif reaches_to_allow(grant, asked, chain, foreign=foreign):
            outcome = truth(rule)
            if outcome is True:
                return Decision(
                    Effect.ALLOW, Reason.ALLOWED_BY_RULE, rule.id, grant.id, owner, reusable()
                )
            if outcome is False:
                unmet.append((rule, grant))
            else:
                failures.append((outcome, rule, grant))
    if foreign:
        return denied(Reason.WRONG_ORGANIZATION, reusable())
    if if_known:
        rule, grant = if_known[0]
        return denied(Reason.RESOURCE_ORGANIZATION_UNKNOWN, reusable(), rule.id, grant.id)
    if failures:
        outcome, rule, grant = failures[0]
        return denied(outcome, reusable(), rule.id, grant.id)
    if unmet:
        rule, grant = unmet[0]
        return denied(Reason.CONDITION_NOT_MET, reusable(), rule.id, grant.id)
    return denied(Reason.PERMISSION_NOT_GRANTED, reusable())


def is_to_actor(grant: Grant, asked: Asked, organization_role: str) -> bool:
    if isinstance(grant.subject, ToUser):
        return grant.subject.user_id == asked.token.actor.user_id
    return organization_role != "" and grant.subject.organization_role == organization_role


def holds(grant: Grant, now: float) -> bool:
    if grant.not_before is not None and now < grant.not_before:
        return False
    return grant.expires_at is None or now < grant.expires_at


def closure(world: World, role: str) -> set[str]:
    names = {role}
    while True:
        more = {name for role in world.roles if role.name in names for name in role.inherits}
        if more <= names:
            return names
        names |= more


def matches(rule: Rule, permission: str) -> bool:
    return rule.permission in (permission, permission.split(":", maxsplit=1)[0] + ":*", "*")


def depends_on_organization(grant: Grant) -> bool:
    """Whether allow rules through a grant apply only to what is in the actor's organization."""
    return not isinstance(grant.subject, ToUser) or isinstance(grant.scope, InOrganization)


def reaches_to_deny(
    grant: Grant,
    asked: Asked,
    chain: list[Resource],
    organizations: list[str],
    *,
    unknown: bool,
) -> bool:
    match grant.scope:
        case InOrganization(organization):
            if organization == asked.token.actor.organization_id:
                return True
            # To the holders of a role in that organization: who acts for another holds none there.
            return isinstance(grant.subject, ToUser) and (unknown or organization in organizations)
        case OnResource(ref):
            return ref in [ResourceRef(entry.type, entry.id) for entry in chain]
    return True


def reaches_to_allow(grant: Grant, asked: Asked, chain: list[Resource], *, foreign: bool) -> bool:
    if foreign:
        return grant.scope is EVERYWHERE and isinstance(grant.subject, ToUser)
    match grant.scope:
        case InOrganization(organization):
            return organization == asked.token.actor.organization_id
        case OnResource(ref):
            return ref in [ResourceRef(entry.type, entry.id) for entry in chain]
    return True


def edges(world: World, asked: Asked, chain: list[Resource], organization_role: str) -> list[float]:
    """When grants that were looked at begin or end: all of the actor's that are not on single
    resources, and those on a resource of the chain."""
    refs = [ResourceRef(entry.type, entry.id) for entry in chain]
    found = []
    for grant in world.grants:
        if not is_to_actor(grant, asked, organization_role):
            continue
        if isinstance(grant.scope, OnResource) and grant.scope.resource not in refs:
            continue
        if (
            not isinstance(grant.subject, ToUser)
            and isinstance(grant.scope, InOrganization)
            and grant.scope.organization_id != asked.token.actor.organization_id
        ):
            continue
        both_ends = (grant.not_before, grant.expires_at)
        found += [edge for edge in both_ends if edge is not None and edge > asked.now]
    return found
