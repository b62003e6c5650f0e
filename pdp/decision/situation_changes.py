"""Changes of a situation: to the user, their grants and memberships, and to values.

Each function proposes changes and returns the situation after each; the search in
`pdp.decision.would_allow` decides again with them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple

from pdp.decision.cel_text import value_text
from pdp.decision.condition_changes import ABSENT, Path
from pdp.decision.conditions import Condition
from pdp.decision.explanation import Change, ChangeKind
from pdp.decision.principal import ANY_ORGANIZATION, IN_ORGANIZATION, UNKNOWN_ORGANIZATION
from pdp.decision.situation import Situation, grant_text, scope_text
from pdp.model import (
    EVERYWHERE,
    Attributes,
    Grant,
    InOrganization,
    OnResource,
    ResourceRef,
    Scope,
    ToUser,
    UserFacts,
    UserStatus,
)

_NEW_GRANT: Final = "(new grant)"


class Option(NamedTuple):
    """A change, and the situation after it."""

    change: Change
    situation: Situation
    towards: Condition | None = None
    """The condition that the change helps to reach its wanted result."""


# --- users and resources --------------------------------------------------------------------------


def with_user_enabled(situation: Situation, user: UserFacts) -> Option:
    """Enables the user."""
    stored = replace(user.user, status=UserStatus.ACTIVE)
    change = Change(ChangeKind.USER, f"enable the user {stored.id}", stored.id)
    return Option(change, replace(situation, user=replace(user, user=stored)))


def with_new_session(situation: Situation, user: UserFacts) -> Option:
    """Signs in again."""
    change = Change(ChangeKind.SESSION, "sign in again: a session that is not revoked")
    changed = replace(user, revoked_sessions=frozenset())
    return Option(change, replace(situation, user=changed))


def with_chain_stored(situation: Situation) -> Option:
    """Stores the resource and its ancestors."""
    chain = tuple(facts._replace(stored=True) for facts in situation.chain)
    change = Change(ChangeKind.RESOURCE, "store the resource, and those above it")
    return Option(change, replace(situation, chain=chain))


# --- roles ----------------------------------------------------------------------------------------


def candidate_roles(situation: Situation) -> list[str]:
    """Roles that may allow the permission, those with the fewest rules first."""
    policy, permission = situation.policy, situation.question.permission
    candidates = []
    for name in policy.role_names():
        matched = policy.rules_of(name, permission)
        if matched.allow and not any(rule.condition is None for rule in matched.deny):
            candidates.append((len(policy.closure(name)), len(matched.allow), name))
    return [name for _, _, name in sorted(candidates)]


def with_role(situation: Situation, user: UserFacts, role: str, needed: int) -> Iterator[Option]:
    """Grants a role, in the narrowest scope first."""
    for scope in _scopes(situation, needed):
        grant = Grant(_NEW_GRANT, role, ToUser(user.user.id), scope)
        change = Change(ChangeKind.GRANT, f"grant {grant_text(grant)}", role, scope_text(grant))
        changed = replace(user, grants=(*user.grants, grant))
        yield Option(change, replace(situation, user=changed))


def _scopes(situation: Situation, needed: int) -> Iterator[Scope]:
    """Scopes in which a new grant may allow, the narrowest first."""
    if needed != ANY_ORGANIZATION and situation.chain:
        resource = situation.chain[0].resource
        yield OnResource(ResourceRef(resource.type, resource.id))
    active = situation.token.actor.organization_id
    if needed == IN_ORGANIZATION and active is not None:
        yield InOrganization(active)
    yield EVERYWHERE


def without_grants(
    situation: Situation, user: UserFacts, grant_ids: Iterable[str]
) -> Iterator[Option]:
    """Deletes stored grants, each alone."""
    stored = {grant.id: grant for grant in user.grants if grant.id != _NEW_GRANT}
    for grant_id in dict.fromkeys(grant_ids):
        grant = stored.get(grant_id)
        if grant is not None:
            text = f"delete grant {grant.id}: {grant_text(grant)}"
            change = Change(ChangeKind.REVOKE, text, grant_id)
            grants = tuple(other for other in user.grants if other.id != grant_id)
            yield Option(change, replace(situation, user=replace(user, grants=grants)))


# --- organizations --------------------------------------------------------------------------------


def with_active_organizations(situation: Situation, user: UserFacts) -> Iterator[Option]:
    """Switches to the actor's other organizations whose facts are known."""
    actor = situation.token.actor
    for organization_id in (*sorted(situation.organizations), None):
        if organization_id == actor.organization_id:
            continue
        if organization_id is not None and organization_id not in user.memberships:
            continue
        token = replace(situation.token, actor=replace(actor, organization_id=organization_id))
        text = "act without an active organization"
        if organization_id is not None:
            text = f"make {organization_id} the active organization"
        change = Change(
            ChangeKind.ACTIVE_ORGANIZATION, text, "actor.organization", organization_id or ""
        )
        yield Option(change, replace(situation, token=token))


def with_resource_organization(situation: Situation, needed: int) -> Iterator[Option]:
    """Stores the resource in the active organization, if its organization is unknown."""
    active = situation.token.actor.organization_id
    if needed != UNKNOWN_ORGANIZATION or active is None:
        return
    first, *above = situation.chain
    resource = first.resource._replace(organization_id=active)
    change = Change(
        ChangeKind.RESOURCE,
        f"store the resource with its organization, if that is {active}",
        "resource.organization",
        value_text(active),
    )
    chain = (first._replace(resource=resource), *above)
    question = situation.question._replace(resource=resource)
    yield Option(change, replace(situation, chain=chain, question=question))


def with_memberships(situation: Situation, user: UserFacts) -> Iterator[Option]:
    """Makes the user a member of the active organization, in each role that something refers to."""
    organization_id = situation.token.actor.organization_id
    if organization_id is None:
        return
    policy = situation.policy
    roles = set(policy.organization_permissions)
    facts = situation.organizations.get(organization_id)
    for grant in (*policy.role_grants(), *(facts.role_grants if facts is not None else ())):
        if not isinstance(grant.subject, ToUser):
            roles.add(grant.subject.organization_role)
    for role in sorted(roles) or ["org:member"]:
        text = f"make {user.user.id} a member of {organization_id} as {role}"
        change = Change(ChangeKind.MEMBERSHIP, text, organization_id, role)
        memberships = {**user.memberships, organization_id: role}
        yield Option(change, replace(situation, user=replace(user, memberships=memberships)))


# --- conditions -----------------------------------------------------------------------------------


def with_value(situation: Situation, path: Path, value: Any) -> Option | None:
    """Sets what a condition reads to a value; None: nothing can set it so."""
    if path.key is not None:
        return _with_key(situation, path, path.key, value)
    token, actor = situation.token, situation.token.actor
    minutes = value if isinstance(value, float) and value >= 0 else None
    match path.variable:
        case "actor.first_factor_minutes" if minutes is not None:
            kind, text = ChangeKind.FACTOR, f"verify the first factor within {minutes:g} minutes"
            token = replace(token, first_factor_minutes=minutes)
        case "actor.second_factor_minutes" if minutes is not None:
            kind, text = ChangeKind.FACTOR, f"verify the second factor within {minutes:g} minutes"
            token = replace(token, second_factor_minutes=minutes)
        case "actor.impersonator" if value == "":
            kind, text = ChangeKind.SESSION, "act without an impersonator"
            token = replace(token, actor=replace(actor, impersonator_id=None))
        case "actor.organization_role" if isinstance(value, str) and value:
            return _with_organization_role(situation, value)
        case _:
            return None
    change = Change(kind, text, path.variable, value_text(value))
    return Option(change, replace(situation, token=token))


def _with_organization_role(situation: Situation, role: str) -> Option | None:
    active, user = situation.token.actor.organization_id, situation.user
    if active is None or user is None:
        return None
    text = f"make {user.user.id} {role} of {active}"
    change = Change(ChangeKind.MEMBERSHIP, text, active, role)
    memberships = {**user.memberships, active: role}
    return Option(change, replace(situation, user=replace(user, memberships=memberships)))


def _with_key(situation: Situation, path: Path, key: str, value: Any) -> Option | None:
    """Sets a key of a map to a value, or removes it."""
    user, question, chain = situation.user, situation.question, situation.chain
    match path.variable:
        case "context":
            kind, context = ChangeKind.CONTEXT, _set(question.context, key, value)
            changed = replace(situation, question=question._replace(context=context))
        case "resource.attributes" if chain:
            kind, resource = ChangeKind.ATTRIBUTE, chain[0].resource
            attributes = _set(resource.attributes, key, value)
            first = chain[0]._replace(resource=resource._replace(attributes=attributes))
            changed = replace(situation, chain=(first, *chain[1:]))
        case "actor.attributes" if user is not None:
            kind, attributes = ChangeKind.ATTRIBUTE, _set(user.user.attributes, key, value)
            stored = replace(user.user, attributes=attributes)
            changed = replace(situation, user=replace(user, user=stored))
        case "actor.claims":
            kind, claims = ChangeKind.CLAIM, _set(situation.token.claims, key, value)
            changed = replace(situation, token=replace(situation.token, claims=claims))
        case _:
            return None
    target = f"{path.variable}.{key}"
    shown = "" if value is ABSENT else value_text(value)
    text = f"remove {target}" if value is ABSENT else f"set {target} to {shown}"
    return Option(Change(kind, text, target, shown), changed)


def _set(attributes: Attributes, key: str, value: Any) -> Attributes:
    """A copy with the key set; numbers become floats, as everywhere in attributes."""
    rest = {name: other for name, other in attributes.items() if name != key}
    if value is ABSENT:
        return rest
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return {**rest, key: value}
