"""Answers kept at the edge, and when they may be given again. Knows no gRPC; thread-safe.

The key of an answer is the SHA-256 of everything that was sent (`key_of`); a decision reads nothing
else of its caller.

An answer is kept if it says for how long (`reusable_seconds`), is of the epoch that the change
stream tells of, is not from before what the stream has told (what would have dropped it has gone
by), and there is a lease. It is given again until the earliest of

    sent_at + reusable_seconds     the token's end, the next edge of a grant
    sent_at + age_seconds_max
    the end of the lease           all that was committed before it was granted has been told

What empties it:

    USER            answers to that actor
    ORGANIZATION    answers to actors whose active organization it is
    RESOURCE        answers about it and about what is below it
    anything else   all: other kinds, kinds that are not known, keys of another form, a new start

Whoever looks takes the lease first, the entry second and the clock last; whoever is told drops
first and grants the new lease after. So no entry is given by a lease that knows better, and a
process that was paused in between finds the lease over. A new start puts a new object
in the place of entries and lease at once: no entry is given by the lease of another start.

A hit takes no lock. No error is ever kept.
"""

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message
from pdpapi.v1.change_service_pb2 import (
    CHANGE_KIND_ORGANIZATION,
    CHANGE_KIND_RESOURCE,
    CHANGE_KIND_USER,
    ChangedKey,
)

T = TypeVar("T")

_NO_LEASE = -math.inf
_DROPPED_EXACTLY = {CHANGE_KIND_USER: 1, CHANGE_KIND_ORGANIZATION: 1, CHANGE_KIND_RESOURCE: 2}
"""Kinds that name the answers they touch -> how many identifiers name them."""

_Name = tuple[int, tuple[str, ...]]
"""What an answer depends on, as a change names it: kind and key."""


def key_of(method: str, request: Message) -> bytes:
    """The key of the answer to `request`, which is to be sent to the method of that name."""
    name = method.encode()
    # The request is what is left: the length of the name tells the two apart.
    sent = b"%d:%b%b" % (len(name), name, request.SerializeToString(deterministic=True))
    return hashlib.sha256(sent).digest()


@dataclass(frozen=True, slots=True)
class Touched:
    """Whose changes touch an answer."""

    user_id: str
    """The actor. An answer that names none is not kept."""
    organization_id: str
    """The actor's active organization; empty: none."""
    resources: frozenset[tuple[str, str]]
    """Type and id of the resource that was asked about, and of all above it."""


@dataclass(frozen=True, slots=True)
class Fresh(Generic[T]):
    """What asking brought."""

    answer: T
    """Given again as it is. Never None."""
    sent_at: float
    """Monotonic seconds, read before the question was sent."""
    epoch: str
    revision: int
    reusable_seconds: float | None
    """From `sent_at` on; None: not to be kept."""
    touched: Touched
    weight: int = 1
    """For how many answers it counts (a batch is kept as one)."""


@dataclass(frozen=True, slots=True)
class Given(Generic[T]):
    """An answer, and whether it was kept from before."""

    answer: T
    cached: bool


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    answer: T
    ends_at: float
    names: tuple[_Name, ...]
    weight: int


class _Kept(Generic[T]):
    """What is kept since the last new start. `entries` and `lease_ends_at` are read unlocked."""

    __slots__ = ("by_name", "entries", "epoch", "floor", "lease_ends_at", "told", "weight")

    def __init__(self, epoch: str, revision: int) -> None:
        self.entries: OrderedDict[bytes, _Entry[T]] = OrderedDict()  # the oldest first
        self.by_name: dict[_Name, set[bytes]] = {}
        self.weight = 0
        self.epoch = epoch
        self.told = revision
        """All changes up to here were told."""
        self.floor = revision
        """Answers from before this revision are not kept."""
        self.lease_ends_at = _NO_LEASE

    def add(self, key: bytes, entry: _Entry[T]) -> None:
        for name in entry.names:
            self.by_name.setdefault(name, set()).add(key)
        self.weight += entry.weight
        self.entries[key] = entry

    def drop(self, key: bytes) -> None:
        entry = self.entries.pop(key, None)
        if entry is None:
            return
        self.weight -= entry.weight
        for name in entry.names:
            keys = self.by_name[name]
            keys.discard(key)
            if not keys:
                del self.by_name[name]

    def drop_named(self, name: _Name) -> None:
        for key in tuple(self.by_name.get(name, ())):
            self.drop(key)

    def drop_all(self) -> None:
        self.entries.clear()
        self.by_name.clear()
        self.weight = 0

    def drop_oldest(self, now: float, weight_max: int) -> None:
        """Those that ended, as far as they are the oldest, and more until `weight_max` is kept."""
        while self.entries:
            key, entry = next(iter(self.entries.items()))
            if now < entry.ends_at and self.weight <= weight_max:
                return
            self.drop(key)


class DecisionCache(Generic[T]):
    """Keeps answers of type `T` by the rules above.

    `changed`, `start_over` and `renew` are for the one who follows the change stream, in the order
    in which it tells.
    """

    def __init__(
        self,
        *,
        entries_max: int = 10_000,
        age_seconds_max: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is the one that `Fresh.sent_at` and the ends of leases are read from."""
        self._entries_max = entries_max
        self._age_seconds_max = age_seconds_max
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: _Kept[T] = _Kept("", 0)
        self._asking: dict[bytes, Future[None]] = {}

    @property
    def size(self) -> int:
        """How many entries there are."""
        return len(self._kept.entries)

    @property
    def weight(self) -> int:
        """For how many answers the entries count; at most `entries_max`."""
        return self._kept.weight

    @property
    def in_flight(self) -> int:
        """How many keys are being asked for now."""
        return len(self._asking)

    @property
    def lease_ends_at(self) -> float:
        """When the lease ends or ended (seconds of the clock); minus infinity: there was none."""
        return self._kept.lease_ends_at

    @property
    def live(self) -> bool:
        """Whether there is a lease now."""
        return self._clock() < self.lease_ends_at

    @property
    def position(self) -> tuple[str, int]:
        """Epoch and revision up to which all changes were told; an empty epoch: none were."""
        with self._lock:
            return self._kept.epoch, self._kept.told

    # --- for those who ask ----------------------------------------------------------------------

    def find(self, key: bytes, *, overtime_seconds: float = 0.0) -> T | None:
        """The kept answer if it may be given now, or would have been until `overtime_seconds` after
        the end of the lease."""
        # The order of these is what the module's docstring says of it.
        kept = self._kept
        lease_ends_at = kept.lease_ends_at
        entry = kept.entries.get(key)
        if entry is None:
            return None
        now = self._clock()
        if now < entry.ends_at and now < lease_ends_at + overtime_seconds:
            return entry.answer
        return None

    def get_or_ask(
        self, key: bytes, ask: Callable[[], Fresh[T]], *, wait_seconds: float | None = None
    ) -> Given[T]:
        """The kept answer, or what `ask` brings; whatever `ask` raises passes.

        Of several who want one key at the same time the first asks, and the others wait for that,
        at most `wait_seconds` (None: however long it takes). They get the answer only if it was
        kept, because it may be from before a change that was committed before they came. If it was
        not, they ask too.
        """
        answer = self.find(key)
        if answer is not None:
            return Given(answer, cached=True)
        asking, mine = self.claim(key)
        try:
            if not mine:
                wait([asking], wait_seconds)
            # Another may have asked, and kept the answer, since this one looked.
            answer = self.find(key)
            return self._ask(key, ask) if answer is None else Given(answer, cached=True)
        finally:
            if mine:
                self.release(key, asking)

    def claim(self, key: bytes) -> "tuple[Future[None], bool]":
        """Who asks: the one that is given True, which has to `release` the key after. Everybody
        else waits for the future, and looks again: no answer is handed on without being kept."""
        asking: Future[None] = Future()
        if not self.live:  # nothing would be kept, so nobody has anything to wait for
            return asking, True
        with self._lock:
            other = self._asking.setdefault(key, asking)
        return other, other is asking

    def release(self, key: bytes, asking: "Future[None]") -> None:
        """The one who asked has an answer, or none."""
        with self._lock:
            if self._asking.get(key) is asking:
                del self._asking[key]
        asking.set_result(None)

    def forget(self, key: bytes) -> None:
        """Drops the answer to one question."""
        with self._lock:
            self._kept.drop(key)

    def _ask(self, key: bytes, ask: Callable[[], Fresh[T]]) -> Given[T]:
        fresh = ask()
        self.keep(key, fresh)
        return Given(fresh.answer, cached=False)

    def keep(self, key: bytes, fresh: Fresh[T]) -> None:
        """Keeps an answer if the rules allow it."""
        seconds = fresh.reusable_seconds or 0.0
        ends_at = fresh.sent_at + min(seconds, self._age_seconds_max)
        with self._lock:
            kept, now = self._kept, self._clock()
            # This is the newer word: if it is not kept, the older one does not outlast it either.
            kept.drop(key)
            if (
                not fresh.touched.user_id
                or not fresh.epoch
                or fresh.epoch != kept.epoch
                or fresh.revision < kept.floor
                or not now < min(ends_at, kept.lease_ends_at)
                or fresh.weight > self._entries_max
            ):
                return
            kept.drop_oldest(now, self._entries_max - fresh.weight)
            names = tuple(_names(fresh.touched))
            kept.add(key, _Entry(fresh.answer, ends_at, names, fresh.weight))

    # --- for the one who follows the change stream ------------------------------------------------

    def changed(self, changes: Sequence[ChangedKey], revision: int) -> None:
        """These were touched, and all changes up to `revision` have been told with them."""
        with self._lock:
            kept = self._kept
            for change in changes:
                if _DROPPED_EXACTLY.get(change.kind) == len(change.key):
                    kept.drop_named((change.kind, tuple(change.key)))
                else:
                    kept.drop_all()
            # Where `revision` is no later than before, these are a part of the next one: what they
            # touch was dropped, so no answer from before it may come in any more.
            kept.floor = max(kept.floor, revision, kept.told + 1 if changes else 0)
            kept.told = max(kept.told, revision)

    def start_over(self, epoch: str, revision: int) -> None:
        """Drops everything, the lease too. Changes after `revision` will be told; an empty epoch:
        from where on is not known yet."""
        with self._lock:
            self._start_over(epoch, revision)

    def renew(self, revision: int, epoch: str, ends_at: float) -> None:
        """All changes up to `revision` were told, and the lease ends at `ends_at` (monotonic
        seconds), be that later or earlier than before.

        Another epoch is a new start. What is from before a revision that was told already (a stream
        that contradicts itself) grants nothing.
        """
        with self._lock:
            if epoch != self._kept.epoch:
                self._start_over(epoch, revision)
            kept = self._kept
            if not epoch or revision < kept.told:
                return
            kept.told = revision
            kept.floor = max(kept.floor, revision)
            kept.drop_oldest(self._clock(), self._entries_max)
            kept.lease_ends_at = ends_at  # last: it holds of what is left now

    def _start_over(self, epoch: str, revision: int) -> None:
        self._kept = _Kept(epoch, revision)


def _names(touched: Touched) -> Iterator[_Name]:
    yield CHANGE_KIND_USER, (touched.user_id,)
    if touched.organization_id:
        yield CHANGE_KIND_ORGANIZATION, (touched.organization_id,)
    for resource in touched.resources:
        yield CHANGE_KIND_RESOURCE, resource
