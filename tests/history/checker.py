"""Whether every answer of a history can be explained. Pure: a history in, violations out.

A history is what the clients saw, on one monotonic clock that all of them share: writes that made
a fact hold or end, barriers, and checks. A fact is a name for something that either holds or not
("the grant g is there"); only one client writes it, one write after the other. A check needs
several facts: the right answer is ALLOW while all of them hold.

Nothing that the service says is believed but that a write or a barrier has returned. A write
without an answer may have happened, then or later, or never: from then on its fact may hold and
may not.

An ALLOW is explained by a state, not older than the bound when the check began, in which all its
facts may have held together. The kinds of violation:

- STALE: no such state within the bound.
- BARRIER: only states from before a revision whose barrier had returned before the check began.
- UNREACHED: only states from before the revision that the check asked for at least.
- TORN: the facts do not hold together at the revision that the answer itself names.
- DENIED: a denial though all facts held, at its revision or for the whole time in question. Not a
  hole, but a cache that keeps denials too long would show itself here.
"""

import bisect
import enum
import itertools
import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field


class Outcome(enum.Enum):
    """The outcome of a check."""

    ALLOW = "allow"
    DENY = "deny"
    NO_ANSWER = "no answer"


class Kind(enum.Enum):
    """The fault of an answer."""

    STALE = "stale"
    BARRIER = "barrier"
    UNREACHED = "unreached"
    TORN = "torn"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Write:
    """A fact was made to hold, or to end."""

    fact: str
    holds: bool
    invoked: float
    returned: float | None
    """None: nobody knows whether it happened."""
    revision: int | None
    """The revision that holds it, if the write has returned."""


@dataclass(frozen=True, slots=True)
class Barrier:
    """A barrier that returned."""

    revision: int
    invoked: float
    returned: float


@dataclass(frozen=True, slots=True)
class Check:
    """A question that was asked somewhere."""

    place: str
    needs: frozenset[str]
    began: float
    ended: float
    outcome: Outcome
    revision: int = 0
    """The one that the answer names."""
    at_least_revision: int = 0
    cached: bool = False
    """Whether it came from a cache. For the summary: it excuses nothing."""
    said: str = ""
    """The reason of the answer or the error, for who looks into a violation."""


@dataclass(slots=True)
class History:
    """The operations as the clients saw them."""

    writes: list[Write] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def operations(self) -> int:
        """All of them."""
        return len(self.writes) + len(self.barriers) + len(self.checks)


@dataclass(frozen=True, slots=True)
class Violation:
    """An answer that nothing explains."""

    kind: Kind
    check: Check
    staleness: float
    """Of an allow: how long before the check began the last state that explains it had ended, in
    seconds; infinite: there never was one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of checking a history."""

    violations: Sequence[Violation]
    staleness: Mapping[str, Sequence[float]]
    """Place -> how long before the check the state had ended that explains an ALLOW, in seconds
    and in order, of those for which it had."""

    def count(self, kind: Kind) -> int:
        return sum(violation.kind is kind for violation in self.violations)


@dataclass(frozen=True, slots=True)
class _Span:
    """A stretch in which facts hold, in time and in revisions; the end is not part of it."""

    begin: float
    end: float
    first: float
    last: float
    """The revision that ends it."""


_Spans = Sequence[_Span]
"""Apart from each other and in order, in time as in revisions."""


def judge(history: History, bound_seconds: float) -> Verdict:
    """Holds every answer against the history.

    Raises ValueError where the history itself makes no sense: writes of one fact that overlap.
    """
    return _Judge(history, bound_seconds).verdict()


class _Judge:
    def __init__(self, history: History, bound_seconds: float) -> None:
        self._checks = history.checks
        self._bound = bound_seconds
        self._writes: dict[str, list[Write]] = defaultdict(list)
        for write in sorted(history.writes, key=lambda write: write.invoked):
            self._writes[write.fact].append(write)
        for writes in self._writes.values():
            _require_one_after_the_other(writes)
        barriers = sorted(history.barriers, key=lambda barrier: barrier.returned)
        self._barrier_returned = [barrier.returned for barrier in barriers]
        self._barrier_revisions = list(
            itertools.accumulate((barrier.revision for barrier in barriers), max)
        )
        self._may: dict[frozenset[str], _Spans] = {}
        self._must: dict[frozenset[str], _Spans] = {}

    def verdict(self) -> Verdict:
        violations: list[Violation] = []
        staleness: dict[str, list[float]] = defaultdict(list)
        for check in self._checks:
            if check.needs not in self._may:
                lines = [self._writes[fact] for fact in check.needs]
                self._may[check.needs] = _together([_may_hold(writes) for writes in lines])
                self._must[check.needs] = _together([_must_hold(writes) for writes in lines])
            if check.outcome is Outcome.ALLOW:
                state = _newest_at(self._may[check.needs], check.ended)
                age = math.inf if state is None else max(0.0, check.began - state.end)
                staleness[check.place].append(age)
                violations += (
                    Violation(kind, check, age) for kind in self._of_allow(check, state, age)
                )
            elif check.outcome is Outcome.DENY and self._is_wrong_denial(check):
                violations.append(Violation(Kind.DENIED, check, 0.0))
        ages = {place: sorted(age for age in some if age) for place, some in staleness.items()}
        return Verdict(violations, ages)

    def _of_allow(self, check: Check, state: _Span | None, age: float) -> Iterator[Kind]:
        """`state` is the newest that may explain it: an older one ended with an older revision."""
        if age >= self._bound:
            yield Kind.STALE
        if state is not None and state.last <= self._barrier_before(check.began):
            yield Kind.BARRIER
        if state is not None and state.last <= check.at_least_revision:
            yield Kind.UNREACHED
        if not _holds_at(self._may[check.needs], check.revision):
            yield Kind.TORN

    def _is_wrong_denial(self, check: Check) -> bool:
        spans = self._must[check.needs]
        if _holds_at(spans, check.revision):
            return True
        span = _newest_at(spans, check.began - self._bound)
        return span is not None and check.ended < span.end

    def _barrier_before(self, moment: float) -> float:
        index = bisect.bisect_left(self._barrier_returned, moment)
        return self._barrier_revisions[index - 1] if index else -math.inf


def _newest_at(spans: _Spans, moment: float) -> _Span | None:
    """The last that had begun."""
    index = bisect.bisect_right(spans, moment, key=lambda span: span.begin)
    return spans[index - 1] if index else None


def _holds_at(spans: _Spans, revision: float) -> bool:
    index = bisect.bisect_right(spans, revision, key=lambda span: span.first)
    return index > 0 and revision < spans[index - 1].last


def _may_hold(writes: Sequence[Write]) -> _Spans:
    """When a fact may have held: from the moment at which its write could have been committed, to
    the one at which its end surely was."""
    spans = []
    begun: Write | None = None
    known = 0.0
    for write in writes:
        if write.returned is None:
            since = begun or write
            first = known + 1 if begun is None else _revision(begun)
            return [*spans, _Span(since.invoked, math.inf, first, math.inf)]
        known = _revision(write)
        if write.holds:
            begun = begun or write
        elif begun is not None:
            spans.append(_Span(begun.invoked, write.returned, _revision(begun), known))
            begun = None
    if begun is not None:
        spans.append(_Span(begun.invoked, math.inf, _revision(begun), math.inf))
    return spans


def _must_hold(writes: Sequence[Write]) -> _Spans:
    """When a fact surely held."""
    spans = []
    begun: Write | None = None
    for write in writes:
        if begun is not None and (write.returned is None or not write.holds):
            # If it is unknown whether the write happened, no later revision is known to hold it.
            last = _revision(begun) + 1 if write.returned is None else _revision(write)
            spans.append(_Span(_returned(begun), write.invoked, _revision(begun), last))
            begun = None
        if write.returned is None:
            return spans
        if write.holds:
            begun = begun or write
    if begun is not None:
        spans.append(_Span(_returned(begun), math.inf, _revision(begun), math.inf))
    return spans


def _together(facts: Sequence[_Spans]) -> _Spans:
    """When all of them hold."""
    spans: _Spans = [_Span(-math.inf, math.inf, -math.inf, math.inf)]
    for others in facts:
        both = []
        ours, theirs = deque(spans), deque(others)
        while ours and theirs:
            one, other = ours[0], theirs[0]
            span = _Span(
                max(one.begin, other.begin),
                min(one.end, other.end),
                max(one.first, other.first),
                min(one.last, other.last),
            )
            if span.begin < span.end and span.first < span.last:
                both.append(span)
            (ours if one.end < other.end else theirs).popleft()
        spans = both
    return spans


def _require_one_after_the_other(writes: Sequence[Write]) -> None:
    for before, after in itertools.pairwise(writes):
        if before.returned is None:
            raise ValueError(f"{before.fact} was written again though nobody knows what came of it")
        if after.invoked < before.returned or _revision(after) <= _revision(before):
            raise ValueError(f"{before.fact}: two writes at the same time")


def _revision(write: Write) -> float:
    # A write that may have happened: later than any known one.
    return math.inf if write.revision is None else write.revision


def _returned(write: Write) -> float:
    assert write.returned is not None
    return write.returned
