"""Subjects that take turns: each once a round, so that a noisy moment of the machine hits all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Self

from bench import plan
from bench.load import Measurement, Target, measure
from bench.plan import Load, Plan
from bench.processes import settle

PDP, CERBOS = "this PDP", "Cerbos"
LOADED, UNLOADED = "Check", "Check, unloaded"
BATCH, DENIALS, ALLOWS = "batch", "durable denials", "allows beside them"
BESIDE_BATCHES = "Check beside batches"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """A subject and one thing that is measured of it."""

    subject: str
    what: str
    ask: Callable[[], Measurement]
    rules: int = plan.RULES
    checks: int = 1
    """Checks in one request."""
    pid: int | None = None
    """Of a server, which must rest before another is measured."""


@dataclass(frozen=True, slots=True)
class Series:
    """What was measured of one subject: a measurement of each round."""

    subject: str
    what: str
    rules: int
    checks: int
    rounds: Sequence[Measurement]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Reads what asdict() has written."""
        return cls(**{**row, "rounds": [Measurement(**fields) for fields in row["rounds"]]})

    def middle(self, name: str) -> float:
        """Median of a field of Measurement."""
        return float(median(getattr(round_, name) for round_ in self.rounds))


def turn_of(
    subject: str,
    what: str,
    target: Target,
    load: Load,
    chosen: Plan,
    *,
    rules: int = plan.RULES,
    checks: int = 1,
) -> Turn:
    """A turn of a server."""
    return Turn(
        subject,
        what,
        lambda: measure(target, load, chosen.warm_seconds),
        rules,
        checks,
        target.pid,
    )


def take_turns(turns: Sequence[Turn], rounds: int, say: Say) -> list[dict[str, Any]]:
    """The series as JSON."""
    measured: list[list[Measurement]] = [[] for _ in turns]
    pids = {turn.pid for turn in turns if turn.pid is not None}
    for number in range(rounds):
        for turn, found in zip(turns, measured, strict=True):
            settle(pids)
            found.append(_quietest(turn.ask))
            say(f"  round {number + 1}/{rounds}: {_line(turn, found[-1])}")
    return [
        asdict(Series(turn.subject, turn.what, turn.rules, turn.checks, found))
        for turn, found in zip(turns, measured, strict=True)
    ]


def _quietest(ask: Callable[[], Measurement]) -> Measurement:
    """What was measured while the machine did least beside it."""
    found = ask()
    for _ in range(plan.ATTEMPTS_MAX - 1):
        if found.others_share > plan.OTHERS_SHARE_MAX:
            found = min(found, ask(), key=lambda each: each.others_share)
    return found


def _line(turn: Turn, found: Measurement) -> str:
    return (
        f"{turn.subject}, {turn.what}, {turn.rules:,} rules: "
        f"{found.requests_per_second * turn.checks:,.1f} checks/s, p50 {found.p50_ms:.3f} ms, "
        f"p99 {found.p99_ms:.3f} ms, {found.core_share:.0%} of the core, "
        f"others {found.others_share:.0%}"
    )
