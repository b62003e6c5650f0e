"""Past decisions asked again with the permissions, roles and rules of a candidate."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pdp.audit import DecisionRecord
from pdp.decision import Account, Policy, account_of, build_policy
from pdp.impact.inputs import InputsUnusable, Recorded, recorded
from pdp.model import Decision, Effect, Reason

EXAMPLES_MAX: Final = 3
GROUPS_MAX: Final = 10_000
_BEFORE_RULES: Final = frozenset(
    (
        Reason.ACTOR_UNKNOWN,
        Reason.ACTOR_DISABLED,
        Reason.MEMBERSHIP_UNKNOWN,
        Reason.ROUTE_UNKNOWN,
        Reason.PATH_AMBIGUOUS,
    )
)


class FlipKey(NamedTuple):
    """What flips of one kind have in common."""

    permission: str
    effect: Effect
    """What the candidate decides."""
    rule_before: str | None
    rule_after: str | None


@dataclass(slots=True)
class Flips:
    """Flips of one kind."""

    count: int = 0
    users: set[str] = field(default_factory=set)
    examples: list[tuple[DecisionRecord, Decision]] = field(default_factory=list)


@dataclass(slots=True)
class Replay:
    """The result. Every record is in exactly one of the counts."""

    same: int = 0
    """Asked again, with the same effect."""
    flipped: int = 0
    flips: dict[FlipKey, Flips] = field(default_factory=dict)
    before_rules: int = 0
    """Denied before any rule: no policy changes that."""
    without_inputs: int = 0
    inexact: int = 0
    """The candidate reads a value that was removed from the record."""
    unusable: int = 0
    """The inputs are cut, or have another form."""
    not_decided_here: int = 0
    """Queries, and decisions that sidecars served."""
    folded: int = 0
    """Not records: equal denials that share a record, at other times. They are not asked again."""


def replay(records: Iterable[DecisionRecord], candidate: Policy) -> Replay:
    """Asks each decision again. Reads `permissions`, `roles` and `rules` of the candidate."""
    result = Replay()
    candidate = rules_only(candidate)
    for record in records:
        result.folded += record.occurrences - 1
        if record.query is not None or record.reported_by is not None:
            result.not_decided_here += 1
        elif record.reason in _BEFORE_RULES or record.reason.name.startswith(
            ("TOKEN_", "SESSION_")
        ):
            result.before_rules += 1
        elif record.inputs is None:
            result.without_inputs += 1
        else:
            _ask_again(result, record, candidate)
    return result


def rules_only(candidate: Policy) -> Policy:
    """The permissions, roles and rules of a policy: what is exchanged."""
    return build_policy(
        candidate.revision,
        (entity for _, entity in candidate.permissions.items()),
        (entity for _, entity in candidate.roles.items()),
        (entity for _, entity in candidate.rules.items()),
        (),
    )


def _ask_again(result: Replay, record: DecisionRecord, candidate: Policy) -> None:
    try:
        asked = recorded(record, candidate)
    except InputsUnusable:
        result.unusable += 1
        return
    account = account_of(asked.situation)
    decision = account.decision
    if _reads_removed(account, asked):
        result.inexact += 1
    elif decision.effect is record.effect:
        result.same += 1
    else:
        result.flipped += 1
        key = FlipKey(record.permission, decision.effect, record.rule_id, decision.rule_id)
        if key not in result.flips and len(result.flips) >= GROUPS_MAX:
            return
        flips = result.flips.setdefault(key, Flips())
        flips.count += 1
        if record.actor is not None:
            flips.users.add(record.actor.user_id)
        if len(flips.examples) < EXAMPLES_MAX:
            flips.examples.append((record, decision))


def _reads_removed(account: Account, asked: Recorded) -> bool:
    """Whether a condition that was evaluated reads what was removed."""
    if not asked.removed or account.seen is None:
        return False
    for condition in account.seen.outcomes.evaluated():
        opened = condition.opened()
        for read in () if opened is None else opened.reads:
            for variable, key in asked.removed:
                if read.name == variable and (key is None or read.keys is None or key in read.keys):
                    return True
    return False
