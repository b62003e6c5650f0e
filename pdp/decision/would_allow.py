"""Finds the smallest sets of changes that would make a denial an allow.

The search starts from the reason of the decision: it proposes changes against exactly that reason,
decides again with each, and continues from there. Every returned set was verified by a decision.
The search is bounded, it is not a proof: other kinds of changes may allow too, and so may more than
`CHANGES_MAX` changes. All of its work counts: decisions, and the values that are tried in
conditions without a decision.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from pdp.decision.condition_changes import Path, distance, proposals_of
from pdp.decision.conditions import Condition, Parts
from pdp.decision.evaluate import Judge, judge_rules
from pdp.decision.explanation import Change, ChangeKind
from pdp.decision.outcomes import Outcomes
from pdp.decision.principal import (
    Candidate,
    Candidates,
)
from pdp.decision.situation import Account, Seen, Situation, account_of, scope_text
from pdp.decision.situation_changes import (
    Option,
    candidate_roles,
    with_active_organizations,
    with_chain_stored,
    with_memberships,
    with_new_session,
    with_resource_organization,
    with_role,
    with_user_enabled,
    with_value,
    without_grants,
)
from pdp.model import (
    Decision,
    Effect,
    Grant,
    Reason,
    ToUser,
    UserFacts,
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

    def _options(self, before: _Tried) -> Iterator[Option]:
        """Changes that might remove the reason of a denial."""
        account = before.account
        situation, reason = account.situation, account.decision.reason
        if reason is Reason.PERMISSION_UNKNOWN or situation.user is None:
            # The facts of an unknown user are not read, and grants to them may be stored: the
            # effect of storing the user cannot be known.
            return
        if reason is Reason.ACTOR_DISABLED:
            yield with_user_enabled(situation, situation.user)
        elif reason is Reason.SESSION_REVOKED:
            yield with_new_session(situation, situation.user)
        elif reason is Reason.MEMBERSHIP_UNKNOWN:
            yield from with_memberships(situation, situation.user)
            yield from with_active_organizations(situation, situation.user)
        elif reason is Reason.RESOURCE_UNKNOWN:
            yield with_chain_stored(situation)
        else:
            yield from self._against_rules(account, situation.user, before.towards)

    def _against_rules(
        self, account: Account, user: UserFacts, towards: Condition | None
    ) -> Iterator[Option]:
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
        yield from with_active_organizations(situation, user)
        for condition in _conditions(denying):
            yield from self._on_condition(account, condition, wanted=False)
        if denying:
            yield from without_grants(situation, user, [candidate[1] for candidate in denying])
        else:
            yield from with_resource_organization(situation, seen.needed)
            yield from self._with_role(situation, user, seen.needed)
        # Also while a rule denies: the same value may make a deny rule not apply and an allow rule
        # apply.
        for condition in reaching:
            if condition is not towards:
                yield from self._on_condition(account, condition, wanted=True)

    def _with_role(self, situation: Situation, user: UserFacts, needed: int) -> Iterator[Option]:
        if self._roles is None:
            roles = candidate_roles(situation)
            self._roles, more = roles[:ROLES_MAX], roles[ROLES_MAX:]
            self.is_cut = self.is_cut or bool(more)
        for role in self._roles:
            yield from with_role(situation, user, role, needed)

    def _on_condition(
        self, account: Account, condition: Condition, *, wanted: bool
    ) -> Iterator[Option]:
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
            option = with_value(account.situation, path, value)
            if option is None or path in factors:
                continue
            there = self._parts_of(condition, self._account(option.situation, _unjudged).seen)
            if there is not None and distance(there, wanted=wanted) < before:
                if option.change.kind is ChangeKind.FACTOR:
                    factors.add(path)  # the first proposal has the greatest age
                yield option._replace(towards=condition)
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
