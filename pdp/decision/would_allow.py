"""Finds the smallest sets of changes that would make a denial an allow.

The search starts from the reason of the decision: it proposes changes against exactly that reason,
decides again with each, and continues from there. Every returned set was verified by a decision.
The search is bounded, it is not a proof: other kinds of changes may allow too, and so may more than
`CHANGES_MAX` changes. All of its work counts: decisions, and the values that are tried in
conditions without a decision.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, NamedTuple

from pdp.decision.cel_text import value_text
from pdp.decision.condition_changes import ABSENT, Path, distance, proposals_of
from pdp.decision.conditions import Condition, Parts
from pdp.decision.evaluate import Judge, Outcomes, judge_rules
from pdp.decision.explanation import Change, ChangeKind
from pdp.decision.principal import (
    ANY_ORGANIZATION,
    IN_ORGANIZATION,
    UNKNOWN_ORGANIZATION,
    Candidate,
    Candidates,
)
from pdp.decision.situation import Account, Seen, Situation, account_of, grant_text, scope_text
from pdp.model import (
    EVERYWHERE,
    Attributes,
    Decision,
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
WORK_MAX: Final = 400_000.0
"""The most work of a search, in microseconds of one core, roughly."""
FOUND_MAX: Final = 8
ROLES_MAX: Final = 16
"""The most roles that are tried, those with the fewest rules first."""
NEW_GRANT: Final = "(new grant)"
PROPOSALS_MAX: Final = 64
"""The most values that are tried for a condition."""
_Targets = tuple[tuple[ChangeKind, str], ...]
_EVERYWHERE: Final = scope_text(Grant("", "", ToUser("")))
_ORDER: Final = {kind: index for index, kind in enumerate(ChangeKind)}
# The work of a decision, in the unit of WORK_MAX: as a whole, for each grant of the user, for each
# rule that applies, and for each condition that is evaluated.
_DECISION_WORK: Final = 60.0
_GRANT_WORK: Final = 0.5
_RULE_WORK: Final = 1.0
_CONDITION_WORK: Final = 5.0


class Found(NamedTuple):
    """The result of a search."""

    sets: tuple[tuple[Change, ...], ...] = ()
    """Sets of changes that each make the decision ALLOW, all of the same size. The order within a
    set matters: a later change may depend on an earlier one."""
    is_cut: bool = False
    """Whether a bound ended the search: other sets may allow, also smaller ones."""


@dataclass(frozen=True, slots=True)
class _Option:
    """A change, and the situation after it."""

    change: Change
    situation: Situation
    towards: Condition | None = None
    """The condition that the change brings nearer to what is wanted."""


@dataclass(frozen=True, slots=True)
class _Tried:
    """Changes, and the decision after them."""

    changes: tuple[Change, ...]
    account: Account
    towards: Condition | None = None
    """That of the last change."""


def would_allow(account: Account) -> Found:
    """Searches for the smallest sets of changes that each make a decision ALLOW."""
    search = _Search()
    sets = search.sets(account)
    return Found(sets, search.is_cut)


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


class _Search:
    """One search, with the work that it may still do."""

    def __init__(self) -> None:
        self._asks = ASKS_MAX
        self._work = WORK_MAX
        self._roles: list[str] | None = None
        self._prices: dict[Condition, float] = {}
        self._parts: dict[Condition, Parts] = {}
        self.is_cut = False
        """Whether a bound left something untried."""

    def sets(self, start: Account) -> tuple[tuple[Change, ...], ...]:
        """The smallest sets that allow."""
        if start.decision.effect is Effect.ALLOW:
            return ()
        level = [_Tried((), start)]
        known: set[frozenset[Change]] = set()
        for _ in range(CHANGES_MAX):
            tried = list(self._next(level, known))
            allowing = (case for case in tried if case.account.decision.effect is Effect.ALLOW)
            found = [case.changes for case in allowing]
            if found or self.is_over():
                return tuple(sorted(_distinct(found), key=_rank)[:FOUND_MAX])
            level = sorted(tried, key=lambda case: _ORDER[case.changes[-1].kind])
        return ()

    def is_over(self) -> bool:
        """Whether nothing more may be tried."""
        over = self._asks <= 0 or self._work <= 0
        self.is_cut = self.is_cut or over
        return over

    def _next(self, level: list[_Tried], known: set[frozenset[Change]]) -> Iterator[_Tried]:
        """Decides with one more change than in each case of a level."""
        for before in level:
            for option in self._options(before):
                changes = (*before.changes, option.change)
                if frozenset(changes) in known:
                    continue
                if self.is_over():
                    return
                known.add(frozenset(changes))
                self._asks -= 1
                yield _Tried(changes, self._account(option.situation), option.towards)

    def _account(self, situation: Situation, judge: Judge = judge_rules) -> Account:
        """Decides, and counts the work."""
        account = account_of(situation, judge)
        work = _DECISION_WORK
        if situation.user is not None:
            work += _GRANT_WORK * len(situation.user.grants)
        if account.seen is not None:
            outcomes, (allow, deny) = account.seen.outcomes, account.seen.candidates
            work += _RULE_WORK * (len(allow) + len(deny)) + outcomes.cost()
            work += sum(self._price(condition, account) for condition in outcomes.evaluated())
        self._work -= work
        return account

    def _price(self, condition: Condition, account: Account) -> float:
        """The work of an evaluation. Not exact: a change may make a value larger."""
        price = self._prices.get(condition)
        if price is None:
            opened, seen = condition.opened(), account.seen
            price = _CONDITION_WORK
            if opened is not None and seen is not None:
                price += opened.binding(seen.outcomes.values())
            self._prices[condition] = price
        return price

    def _options(self, before: _Tried) -> Iterator[_Option]:
        """Changes that might remove the reason of a denial."""
        account = before.account
        situation, reason = account.situation, account.decision.reason
        actor = situation.token.actor
        if reason is Reason.PERMISSION_UNKNOWN or situation.user is None:
            # The facts of an unknown user are not read, and grants to them may be stored: the
            # effect of storing the user cannot be known.
            return
        if reason is Reason.ACTOR_DISABLED:
            stored = replace(situation.user.user, status=UserStatus.ACTIVE)
            user = replace(situation.user, user=stored)
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
            yield from self._against_rules(account, situation.user, before.towards)

    def _against_rules(
        self, account: Account, user: UserFacts, towards: Condition | None
    ) -> Iterator[_Option]:
        """Changes against a decision that the rules made. First further changes `towards` the same
        condition, then those of which there are few."""
        situation, seen = account.situation, account.seen
        if seen is None:
            return
        allow, deny = seen.candidates
        denying = [candidate for candidate in deny if seen.outcomes.of(candidate) is not False]
        reaching = _conditions(candidate for candidate in allow if candidate[2] >= seen.needed)
        if towards in reaching:
            yield from self._on_condition(account, towards, wanted=True)
        yield from _active_organizations(situation, user)
        for condition in _conditions(denying):
            yield from self._on_condition(account, condition, wanted=False)
        if denying:
            yield from _revoked(situation, user, [candidate[1] for candidate in denying])
        else:
            yield from _with_organization(situation, seen.needed)
            yield from self._with_role(situation, user, seen.needed)
        # Also while a rule denies: the same value may make a deny rule not apply and an allow rule
        # apply.
        for condition in reaching:
            if condition is not towards:
                yield from self._on_condition(account, condition, wanted=True)

    def _with_role(self, situation: Situation, user: UserFacts, needed: int) -> Iterator[_Option]:
        if self._roles is None:
            roles = _roles(situation)
            self._roles, more = roles[:ROLES_MAX], roles[ROLES_MAX:]
            self.is_cut = self.is_cut or bool(more)
        for role in self._roles:
            for scope in _scopes(situation, needed):
                grant = Grant(NEW_GRANT, role, ToUser(user.user.id), scope)
                text = f"grant {grant_text(grant)}"
                change = Change(ChangeKind.GRANT, text, role, scope_text(grant))
                changed = replace(user, grants=(*user.grants, grant))
                yield _Option(change, replace(situation, user=changed))

    def _on_condition(
        self, account: Account, condition: Condition, *, wanted: bool
    ) -> Iterator[_Option]:
        """Changes of values that a condition reads, if they bring it nearer to `wanted`."""
        parts = self._parts_of(condition, account.seen)
        if parts is None:
            return
        before = distance(parts, wanted=wanted)
        factors: set[Path] = set()
        proposals = proposals_of(parts)
        for path, value in islice(proposals, PROPOSALS_MAX):
            if self.is_over():
                break
            option = _proposed(account.situation, path, value)
            if option is None or path in factors:
                continue
            there = self._parts_of(condition, self._account(option.situation, _unjudged).seen)
            if there is not None and distance(there, wanted=wanted) < before:
                if option.change.kind is ChangeKind.FACTOR:
                    factors.add(path)  # the first proposal has the greatest age
                yield replace(option, towards=condition)
            self._work -= 0.0 if there is None else there.cost()
        else:
            self.is_cut = self.is_cut or next(proposals, None) is not None
        self._work -= parts.cost()

    def _parts_of(self, condition: Condition, seen: Seen | None) -> Parts | None:
        """The parts of a condition. Each expression is compiled once for the search."""
        if seen is None:
            return None
        known, values = self._parts.get(condition), seen.outcomes.values()
        if known is not None:
            return known.with_values(values)
        parts = condition.parts(values)
        if parts is not None:
            self._parts[condition] = parts
        return parts


def _unjudged(
    _candidates: Candidates, _needed: int, _owner: str | None, _until: float, _outcomes: Outcomes
) -> Decision:
    """A judge for values alone: it evaluates no condition."""
    return Decision(Effect.DENY, Reason.CONDITION_NOT_MET)


def _conditions(candidates: Iterable[Candidate]) -> list[Condition]:
    """The conditions of rules, each once."""
    found = (candidate[3] for candidate in candidates)
    return list(dict.fromkeys(condition for condition in found if condition is not None))


# --- roles ----------------------------------------------------------------------------------------


def _roles(situation: Situation) -> list[str]:
    """Roles that may allow the permission, those with the fewest rules first."""
    policy, permission = situation.policy, situation.question.permission
    candidates = []
    for name in policy.role_names():
        matched = policy.rules_of(name, permission)
        if matched.allow and not any(rule.condition is None for rule in matched.deny):
            candidates.append((len(policy.closure(name)), len(matched.allow), name))
    return [name for _, _, name in sorted(candidates)]


def _scopes(situation: Situation, needed: int) -> Iterator[Scope]:
    """Scopes in which a new grant may allow, the narrowest first."""
    if needed != ANY_ORGANIZATION and situation.chain:
        resource = situation.chain[0].resource
        yield OnResource(ResourceRef(resource.type, resource.id))
    active = situation.token.actor.organization_id
    if needed == IN_ORGANIZATION and active is not None:
        yield InOrganization(active)
    yield EVERYWHERE


def _revoked(situation: Situation, user: UserFacts, grant_ids: Iterable[str]) -> Iterator[_Option]:
    stored = {grant.id: grant for grant in user.grants if grant.id != NEW_GRANT}
    for grant_id in dict.fromkeys(grant_ids):
        grant = stored.get(grant_id)
        if grant is not None:
            text = f"delete grant {grant.id}: {grant_text(grant)}"
            change = Change(ChangeKind.REVOKE, text, grant_id)
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


def _with_organization(situation: Situation, needed: int) -> Iterator[_Option]:
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
    yield _Option(change, replace(situation, chain=chain, question=question))


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
