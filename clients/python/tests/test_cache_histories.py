"""Whatever happens in whatever order, an answer given from the cache was true within the lease.

A world of facts, a server that streams it, and a caller, all in one thread on one clock. What
is drawn is the order of what happens, also while a question is under way and between the steps of
`find` (a process that was paused). Each protection, switched off, must be caught by the same
test: otherwise the test would prove nothing.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from pdp_client.cache import DecisionCache, Fresh, Touched
from pdpapi.v1.change_service_pb2 import (
    CHANGE_KIND_ORGANIZATION,
    CHANGE_KIND_RESOURCE,
    CHANGE_KIND_ROLE,
    CHANGE_KIND_USER,
    ChangedKey,
)

from tests.kit import soak

LEASE = 1.0
REUSABLE = 3.0
USER = (CHANGE_KIND_USER, ("u",))
ORGANIZATION = (CHANGE_KIND_ORGANIZATION, ("o",))
COURSE = (CHANGE_KIND_RESOURCE, ("course", "c"))
SCHOOL = (CHANGE_KIND_RESOURCE, ("school", "s"))
ROLE = (CHANGE_KIND_ROLE, ("R",))
OTHERS = (CHANGE_KIND_USER, ("v",))
THINGS = (USER, ORGANIZATION, COURSE, SCHOOL, ROLE, OTHERS)
Thing = tuple[int, tuple[str, ...]]
Facts = dict[Thing, int]
"""The version of each thing."""

QUESTIONS = {
    b"about nothing": (frozenset[tuple[str, str]](), (USER, ORGANIZATION, ROLE)),
    b"about a course": (
        frozenset({("course", "c"), ("school", "s")}),
        (USER, ORGANIZATION, ROLE, COURSE, SCHOOL),
    ),
}
"""Key -> what is touched, and what the answer is made of."""

Happening = tuple[object, ...]


@dataclass(frozen=True)
class State:
    """The facts from `since` on."""

    epoch: str
    revision: int
    facts: Facts
    since: float


class PausedKey(bytes):
    """A key that is looked up slowly: things happen before the entry is found."""

    pause: Callable[[], None] = staticmethod(lambda: None)

    def __hash__(self) -> int:
        self.pause()
        return super().__hash__()


class World:
    """Facts and their history, a stream about them, and a cache that follows it."""

    def __init__(self, kind: type[DecisionCache[object]]) -> None:
        self.now = 1_000.0
        self.history = [State("e0", 1, dict.fromkeys(THINGS, 0), self.now)]
        self.edges = 0
        self.waiting: deque[Callable[[], None]] = deque()
        self.granted_at = -LEASE
        """When the lease that the cache holds was sent."""
        self.cache = kind(clock=self.clock, age_seconds_max=2.0)
        self.pauses: list[Sequence[Happening]] = []
        self.in_the_air: deque[tuple[bytes, Fresh[object]]] = deque()
        self.wrong: list[str] = []
        self.open_stream()

    def clock(self) -> float:
        self._pause()
        return self.now

    def _pause(self) -> None:
        if self.pauses:
            happenings, *rest = self.pauses
            self.pauses = []  # what happens in a pause is not paused itself
            self.do(*happenings)
            self.pauses = rest

    # --- what can happen --------------------------------------------------------------------------

    def do(self, *happenings: Happening) -> None:
        for name, *arguments in happenings:
            self.now += 0.001  # nothing happens at the same time
            getattr(self, str(name))(*arguments)

    def tick(self, seconds: float) -> None:
        self.now += seconds

    def commit(self, things: Sequence[Thing], parts: bool) -> None:
        """A write. In parts: a revision that takes more than one message."""
        last = self.history[-1]
        facts = {t: v + (t in things) for t, v in last.facts.items()}
        self.history.append(State(last.epoch, last.revision + 1, facts, self.now))
        self._tell_of(things, last.revision, parts)

    def _tell_of(self, things: Sequence[Thing], before: int, parts: bool) -> None:
        if parts:
            for index, thing in enumerate(things):
                self._tell_changed((thing,), before + (index == len(things) - 1))
        else:
            self._tell_changed(things, before + 1)

    def _tell_changed(self, things: Sequence[Thing], revision: int) -> None:
        changes = [ChangedKey(kind=kind, key=key) for kind, key in things]
        self.waiting.append(lambda: self.cache.changed(changes, revision))

    def restore(self, back: int) -> None:
        """The database as it was, in another epoch."""
        last = self.history[-1]
        # Versions are never used twice, so a lost change differs from the next one.
        earlier = self.history[max(0, len(self.history) - 1 - back)]
        self.edges += 1
        facts = {t: 100 * self.edges + v for t, v in earlier.facts.items()}
        epoch = f"e{self.edges}"
        assert epoch != last.epoch
        self.history.append(State(epoch, earlier.revision, facts, self.now))
        self.waiting.append(lambda: self.cache.resync(epoch, earlier.revision))

    def beat(self) -> None:
        last, sent_at = self.history[-1], self.now

        def renew() -> None:
            self.granted_at = sent_at
            self.cache.renew(last.revision, last.epoch, sent_at + LEASE)

        self.waiting.append(renew)

    def hear(self, count: int) -> None:
        for _ in range(min(count, len(self.waiting))):
            self.waiting.popleft()()

    def open_stream(self) -> None:
        """The stream is cut, messages under way are lost; the next begins after the last one."""
        self.waiting.clear()
        epoch, revision = self.cache.position
        last = self.history[-1]
        if epoch and epoch != last.epoch:
            self.waiting.append(lambda: self.cache.resync(last.epoch, last.revision))
        elif epoch:
            for state, after in zip(self.history, self.history[1:], strict=False):
                if after.epoch == epoch and state.revision >= revision:
                    things = [t for t in THINGS if state.facts[t] != after.facts[t]]
                    self._tell_of(things, state.revision, parts=False)
        self.beat()

    def ask(self, key: bytes) -> None:
        """A question is answered, and the answer is under way."""
        last = self.history[-1]
        touched, made_of = QUESTIONS[key]
        answer = tuple(last.facts[thing] for thing in made_of)
        fresh = Fresh(
            (key, answer), self.now, last.epoch, last.revision, REUSABLE, Touched("u", "o", touched)
        )
        self.in_the_air.append((key, fresh))

    def land(self) -> None:
        if self.in_the_air:
            key, fresh = self.in_the_air.popleft()
            given = self.cache.get_or_ask(key, lambda: fresh)
            if given.cached:
                self.judge(given.answer, self.granted_at)

    def look(self, key: bytes, *pauses: Sequence[Happening]) -> None:
        """`find`, while things happen between its steps."""
        slow = PausedKey(key)
        slow.pause = self._pause
        self.pauses = list(pauses)
        granted_at = self.granted_at
        found = self.cache.find(slow)
        self.pauses = []
        self.judge(found, granted_at)

    # --- what must hold ---------------------------------------------------------------------------

    def judge(self, found: object, granted_at: float) -> None:
        """Was `found` true at a moment since the lease was granted, and within its length?"""
        if found is None:
            return
        key, answer = found
        earliest, until = max(granted_at, self.now - LEASE), math.inf
        for state in reversed(self.history):
            if until < earliest:
                break
            if answer == tuple(state.facts[thing] for thing in QUESTIONS[key][1]):
                return
            until = state.since
        self.wrong.append(f"{key!r} at {self.now}")


class Draw:
    """Runs: what happens, in which order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def run(self) -> list[Happening]:
        return [
            happening
            for _ in range(self._random.randint(1, 3))
            for happening in (self._story() if self._chance(0.8) else self._some(2))
        ]

    def _story(self) -> list[Happening]:
        """An answer under way, and later a look for it, while other things happen."""
        key = self._random.choice(sorted(QUESTIONS))
        lease = (("beat",), ("hear", 9))
        look = ("look", key, self._meanwhile(), self._meanwhile())
        return [*lease, ("ask", key), *self._some(3), ("land",), *self._some(2), *lease, look]

    def _some(self, count_max: int) -> list[Happening]:
        return [self._one() for _ in range(self._random.randint(0, count_max))]

    def _one(self) -> Happening:
        choose = self._random.choice
        key = choose(sorted(QUESTIONS))
        one: Happening = choose(
            (
                ("commit", self._things(), self._chance(0.5)),
                ("commit", self._things(), self._chance(0.5)),
                ("hear", 1),
                ("hear", 9),
                ("tick", choose((0.1, 0.6, 1.5))),
                ("restore", self._random.randint(0, 2)),
                ("beat",),
                ("open_stream",),
                ("ask", key),
                ("land",),
            )
        )
        return one

    def _meanwhile(self) -> list[Happening]:
        if self._chance(0.2):
            # A process after a pause: time has passed, and a message says so.
            return [("commit", self._things(), False), ("tick", 1.5), ("beat",), ("hear", 9)]
        return self._some(2)

    def _things(self) -> list[Thing]:
        return self._random.sample(THINGS, self._random.choice((1, 2, 2)))

    def _chance(self, share: float) -> bool:
        return self._random.random() < share


RUNS = soak.count(20_000, sample=1_000)
"""Without a protection one of the first 500 is wrong."""


def first_wrong(kind: type[DecisionCache[object]]) -> tuple[list[str], list[Happening]] | None:
    """The first wrong answer of the first run that has one, and that run."""
    for seed in range(RUNS):
        run = Draw(seed).run()
        world = World(kind)
        world.do(*run)
        if world.wrong:
            return world.wrong, run
    return None


@pytest.mark.soak
def test_no_answer_is_given_that_was_not_true_within_the_lease():
    assert first_wrong(DecisionCache) is None


# --- the same without each protection ------------------------------------------------------------


class KeepsTheOld(DecisionCache[object]):
    """Without the revision check."""

    def keep(self, key: bytes, fresh: Fresh[object]) -> None:
        super().keep(key, replace(fresh, revision=10**9))


class MixesEpochs(DecisionCache[object]):
    def keep(self, key: bytes, fresh: Fresh[object]) -> None:
        super().keep(key, replace(fresh, epoch=self.position[0]))


class HearsOnlyWholeRevisions(DecisionCache[object]):
    """A part of a revision does not keep out what was answered before it."""

    def changed(self, changes: Sequence[ChangedKey], revision: int) -> None:
        super().changed(changes, revision)
        self._state.floor = self._state.received


class DropsNothing(DecisionCache[object]):
    def changed(self, changes: Sequence[ChangedKey], revision: int) -> None:
        super().changed([], revision)


class DropsOnlyWhatItKnows(DecisionCache[object]):
    """Other kinds than those that name answers drop nothing."""

    def changed(self, changes: Sequence[ChangedKey], revision: int) -> None:
        super().changed([change for change in changes if change.kind != CHANGE_KIND_ROLE], revision)


class KnowsNothingAbove(DecisionCache[object]):
    """A resource above is not what an answer depends on."""

    def keep(self, key: bytes, fresh: Fresh[object]) -> None:
        asked = frozenset(
            resource for resource in fresh.touched.resources if resource[0] == "course"
        )
        super().keep(key, replace(fresh, touched=replace(fresh.touched, resources=asked)))


class NeverStartsOver(DecisionCache[object]):
    def _resync(self, epoch: str, revision: int) -> None:
        self._state.epoch, self._state.received, self._state.floor = epoch, revision, revision


class NeedsNoLease(DecisionCache[object]):
    def renew(self, revision: int, epoch: str, ends_at: float) -> None:
        super().renew(revision, epoch, ends_at + 100)


class LooksThenTakesTheLease(DecisionCache[object]):
    def find(self, key: bytes, *, overtime_seconds: float = 0.0) -> object | None:
        entry = self._state.entries.get(key)
        now = self._clock()
        if entry and now < entry.ends_at and now < self._state.lease_ends_at:
            return entry.answer
        return None


class ReadsTheClockFirst(DecisionCache[object]):
    def find(self, key: bytes, *, overtime_seconds: float = 0.0) -> object | None:
        now = self._clock()
        lease_ends_at = self._state.lease_ends_at
        entry = self._state.entries.get(key)
        if entry and now < entry.ends_at and now < lease_ends_at:
            return entry.answer
        return None


@pytest.mark.parametrize(
    "kind",
    [
        KeepsTheOld,
        MixesEpochs,
        HearsOnlyWholeRevisions,
        DropsNothing,
        DropsOnlyWhatItKnows,
        KnowsNothingAbove,
        NeverStartsOver,
        NeedsNoLease,
        LooksThenTakesTheLease,
        ReadsTheClockFirst,
    ],
)
def test_without_this_protection_a_wrong_answer_is_found(kind: type[DecisionCache[object]]):
    assert first_wrong(kind)
