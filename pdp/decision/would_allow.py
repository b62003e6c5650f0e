"""Finds the smallest sets of changes that would make a denial an allow.

The search starts from the reason of the decision: it proposes changes against exactly that reason,
decides again with each, and continues from there. Every returned set was verified by a decision.
The search is bounded, it is not a proof: other kinds of changes may allow too, and so may more than
`CHANGES_MAX` changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

from pdp.decision.cel_text import value_text
from pdp.decision.condition_changes import ABSENT, Path, distance, proposals_of
from pdp.decision.conditions import Condition
from pdp.decision.explanation import Change, ChangeKind
from pdp.decision.principal import ANY_ORGANIZATION, IN_ORGANIZATION, UNKNOWN_ORGANIZATION
from pdp.decision.situation import Account, Situation, account_of, grant_text, scope_text
from pdp.model import (
    EVERYWHERE,
    Attributes,
    Effect,
    Grant,
    InOrganization,
    OnResource,
    Reason,
    ResourceRef,
    Scope,
    ToUser,
    UserFacts,
    UserStatus,
)

CHANGES_MAX: Final = 3
"""The most changes in a set."""
ASKS_MAX: Final = 400
"""The most decisions of a search."""
FOUND_MAX: Final = 8
ROLES_MAX: Final = 16
"""The most roles that are tried, those with the fewest rules first."""
NEW_GRANT: Final = "(new grant)"
PROPOSALS_MAX: Final = 64
"""The most values that are tried for a condition."""
_Targets = tuple[tuple[ChangeKind, str], ...]
_EVERYWHERE: Final = scope_text(Grant("", "", ToUser("")))
_ORDER: Final = {kind: index for index, kind in enumerate(ChangeKind)}


@dataclass(frozen=True, slots=True)
class _Option:
    """A change, and the situation after it."""

    change: Change
    situation: Situation


@dataclass(frozen=True, slots=True)
class _Tried:
    """Changes, and the decision after them."""

    changes: tuple[Change, ...]
    account: Account


def would_allow(situation: Situation) -> tuple[tuple[Change, ...], ...]:
    """Sets of changes that each make the decision ALLOW; all have the same, smallest size.

    The order within a set matters: a later change may depend on an earlier one.
    """
    start = account_of(situation)
    if start.decision.effect is Effect.ALLOW:
        return ()
    asks = 0
    level = [_Tried((), start)]
    known: set[frozenset[Change]] = set()
    for _ in range(CHANGES_MAX):
        tried = []
        for before in level:
            options = sorted(
                _options(before.account), key=lambda option: _ORDER[option.change.kind]
            )
            for option in options:
                changes = (*before.changes, option.change)
                if asks < ASKS_MAX and frozenset(changes) not in known:
                    known.add(frozenset(changes))
                    asks += 1
                    tried.append(_Tried(changes, account_of(option.situation)))
        allowing = (case for case in tried if case.account.decision.effect is Effect.ALLOW)
        found = [case.changes for case in allowing]
        if found:
            return tuple(sorted(_distinct(found), key=_rank)[:FOUND_MAX])
        level = tried
    return ()


def _rank(changes: tuple[Change, ...]) -> list[int]:
    return sorted((_ORDER[change.kind] for change in changes), reverse=True)


def _distinct(found: list[tuple[Change, ...]]) -> list[tuple[Change, ...]]:
    """Drops sets that change the same targets to other values, and a role everywhere if the same
    role in a narrower scope suffices."""
    kept: dict[tuple[_Targets, tuple[str, ...]], tuple[Change, ...]] = {}
    narrow: set[_Targets] = set()
    for changes in found:
        targets = tuple((change.kind, change.target) for change in changes)
        scopes = tuple(change.value for change in changes if change.kind is ChangeKind.GRANT)
        if _EVERYWHERE not in scopes:
            narrow.add(targets)
        kept.setdefault((targets, scopes), changes)
    return [
        changes
        for (targets, scopes), changes in kept.items()
        if _EVERYWHERE not in scopes or targets not in narrow
    ]


def _options(account: Account) -> Iterator[_Option]:
    """Changes that might remove the reason of a denial."""
    situation, reason = account.situation, account.decision.reason
    actor = situation.token.actor
    if reason is Reason.PERMISSION_UNKNOWN or situation.user is None:
        # The facts of an unknown user are not read, and grants to them may be stored: the effect of
        # storing the user cannot be known.
        return
    if reason is Reason.ACTOR_DISABLED:
        user = replace(situation.user, user=replace(situation.user.user, status=UserStatus.ACTIVE))
        change = Change(ChangeKind.USER, f"enable the user {actor.user_id}", actor.user_id)
        yield _Option(change, replace(situation, user=user))
    elif reason is Reason.SESSION_REVOKED:
        user = replace(situation.user, revoked_sessions=frozenset())
        change = Change(ChangeKind.SESSION, "sign in again: a session that is not revoked")
        yield _Option(change, replace(situation, user=user))
    elif reason is Reason.MEMBERSHIP_UNKNOWN:
        yield from _memberships(situation, situation.user)
        yield from _active_organizations(situation, situation.user)
    elif reason is Reason.RESOURCE_UNKNOWN:
        chain = tuple(facts._replace(stored=True) for facts in situation.chain)
        change = Change(ChangeKind.RESOURCE, "store the resource, and those above it")
        yield _Option(change, replace(situation, chain=chain))
    else:
        yield from _against_rules(account, situation.user)


def _against_rules(account: Account, user: UserFacts) -> Iterator[_Option]:
    """Changes against a decision that the rules made."""
    situation, seen = account.situation, account.seen
    if seen is None:
        return
    allow, deny = seen.candidates
    yield from _active_organizations(situation, user)
    # Also while a rule denies: the same value may make a deny rule not apply and an allow rule
    # apply.
    for _, _, reach, condition in allow:
        if reach >= seen.needed:
            yield from _on_condition(account, condition, wanted=True)
    denying = [candidate for candidate in deny if seen.outcomes.of(candidate) is not False]
    for _, grant_id, _, condition in denying:
        yield from _on_condition(account, condition, wanted=False)
        yield from _revoked(situation, user, grant_id)
    if denying:
        return
    active = situation.token.actor.organization_id
    if seen.needed == UNKNOWN_ORGANIZATION and active is not None:
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
        yield _Option(change, replace(situation, chain=chain, question=question))
    yield from _roles(situation, user, seen.needed)


# --- roles ----------------------------------------------------------------------------------------


def _roles(situation: Situation, user: UserFacts, needed: int) -> Iterator[_Option]:
    policy, permission = situation.policy, situation.question.permission
    candidates = []
    for name in policy.role_names():
        matched = policy.rules_of(name, permission)
        if matched.allow and not any(rule.condition is None for rule in matched.deny):
            candidates.append((len(policy.closure(name)), len(matched.allow), name))
    for _, _, role in sorted(candidates)[:ROLES_MAX]:
        for scope in _scopes(situation, needed):
            grant = Grant(NEW_GRANT, role, ToUser(user.user.id), scope)
            change = Change(ChangeKind.GRANT, f"grant {grant_text(grant)}", role, scope_text(grant))
            changed = replace(user, grants=(*user.grants, grant))
            yield _Option(change, replace(situation, user=changed))


def _scopes(situation: Situation, needed: int) -> Iterator[Scope]:
    """Scopes in which a new grant may allow, the narrowest first."""
    if needed != ANY_ORGANIZATION and situation.chain:
        resource = situation.chain[0].resource
        yield OnResource(ResourceRef(resource.type, resource.id))
    active = situation.token.actor.organization_id
    if needed == IN_ORGANIZATION and active is not None:
        yield InOrganization(active)
    yield EVERYWHERE


def _revoked(situation: Situation, user: UserFacts, grant_id: str) -> Iterator[_Option]:
    for grant in user.grants:
        if grant.id == grant_id and grant_id != NEW_GRANT:
            change = Change(
                ChangeKind.REVOKE, f"delete grant {grant.id}: {grant_text(grant)}", grant_id
            )
            grants = tuple(other for other in user.grants if other.id != grant_id)
            yield _Option(change, replace(situation, user=replace(user, grants=grants)))


# --- organizations --------------------------------------------------------------------------------


def _active_organizations(situation: Situation, user: UserFacts) -> Iterator[_Option]:
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
        yield _Option(change, replace(situation, token=token))


def _memberships(situation: Situation, user: UserFacts) -> Iterator[_Option]:
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
        yield _Option(change, replace(situation, user=replace(user, memberships=memberships)))


# --- conditions -----------------------------------------------------------------------------------


def _on_condition(
    account: Account, condition: Condition | None, *, wanted: bool
) -> Iterator[_Option]:
    """Changes of values that a condition reads, if they bring it nearer to `wanted`."""
    seen = account.seen
    if condition is None or seen is None:
        return
    values = seen.outcomes.values()
    before = distance(condition, values, wanted=wanted)
    factors: set[Path] = set()
    for path, value in islice(proposals_of(condition, values), PROPOSALS_MAX):
        option = _proposed(account.situation, path, value)
        if option is None or path in factors:
            continue
        changed = account_of(option.situation).seen
        if changed is None:
            continue
        if distance(condition, changed.outcomes.values(), wanted=wanted) < before:
            if option.change.kind is ChangeKind.FACTOR:
                factors.add(path)  # the first proposal has the greatest age
            yield option


def _proposed(situation: Situation, path: Path, value: Any) -> _Option | None:
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
    return _Option(change, replace(situation, token=token))


def _with_organization_role(situation: Situation, role: str) -> _Option | None:
    active, user = situation.token.actor.organization_id, situation.user
    if active is None or user is None:
        return None
    text = f"make {user.user.id} {role} of {active}"
    change = Change(ChangeKind.MEMBERSHIP, text, active, role)
    memberships = {**user.memberships, active: role}
    return _Option(change, replace(situation, user=replace(user, memberships=memberships)))


def _with_key(situation: Situation, path: Path, key: str, value: Any) -> _Option | None:
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
    return _Option(Change(kind, text, target, shown), changed)


def _set(attributes: Attributes, key: str, value: Any) -> Attributes:
    """A copy with the key set; numbers become floats, as everywhere in attributes."""
    rest = {name: other for name, other in attributes.items() if name != key}
    if value is ABSENT:
        return rest
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return {**rest, key: value}
