"""A cache of decisions at the edge, and the rules by which it may answer. Knows no gRPC;
thread-safe.

The key of an entry is the SHA-256 of the whole request (`key_of`); a decision reads nothing else of
its caller.

An answer is cached if it has a `reusable_seconds`, is of the epoch of the change stream, is not
older than the last change that the stream has sent (a change that would have dropped it has
passed), and if there is a lease. It is served until the earliest of

    sent_at + reusable_seconds     the token's end, the next edge of a grant
    sent_at + age_seconds_max
    the end of the lease           all changes committed before its grant have been received

What empties it:

    USER            answers to that actor
    ORGANIZATION    answers to actors whose active organization it is
    RESOURCE        answers about it and its descendants
    anything else   all: other kinds, unknown kinds, keys of another form, a resync

A lookup reads the lease first, the entry second and the clock last. A change drops entries first
and renews the lease afterwards. So no entry is served under a lease that is newer than the entry's
removal, and a process that was paused in between finds the lease expired. A resync replaces entries
and lease together by a new object: no entry is served under the lease of another epoch.

A hit takes no lock. Errors are never cached.
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
"""Kinds that affect only answers with their name, and the length of their key."""

_Name = tuple[int, tuple[str, ...]]
"""Something that an answer depends on, as a change names it: kind and key."""


def key_of(method: str, request: Message) -> bytes:
    """The key of the answer to `request`, when sent to the method of that name."""
    name = method.encode()
    # The length of the name separates it from the request, which is the rest.
    sent = b"%d:%b%b" % (len(name), name, request.SerializeToString(deterministic=True))
    return hashlib.sha256(sent).digest()


@dataclass(frozen=True, slots=True)
class Touched:
    """The objects whose changes affect an answer."""

    user_id: str
    """The actor. An answer without an actor is not cached."""
    organization_id: str
    """The actor's active organization; empty: none."""
    resources: frozenset[tuple[str, str]]
    """Type and id of the resource of the question, and of all its ancestors."""


@dataclass(frozen=True, slots=True)
class Fresh(Generic[T]):
    """A new answer of the PDP."""

    answer: T
    """Served from the cache unchanged. Never None."""
    sent_at: float
    """Monotonic seconds, read before the question was sent."""
    epoch: str
    revision: int
    reusable_seconds: float | None
    """Seconds from `sent_at`; None: do not cache it."""
    touched: Touched
    weight: int = 1
    """The number of answers in it (a batch is cached as a whole)."""


@dataclass(frozen=True, slots=True)
class Given(Generic[T]):
    """An answer, and whether it came from the cache."""

    answer: T
    cached: bool


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    answer: T
    ends_at: float
    names: tuple[_Name, ...]
    weight: int


class _State(Generic[T]):
    """The state since the last resync. `entries` and `lease_ends_at` are read without the lock."""

    __slots__ = ("by_name", "entries", "epoch", "floor", "lease_ends_at", "received", "weight")

    def __init__(self, epoch: str, revision: int) -> None:
        self.entries: OrderedDict[bytes, _Entry[T]] = OrderedDict()  # oldest first
        self.by_name: dict[_Name, set[bytes]] = {}
        self.weight = 0
        self.epoch = epoch
        self.received = revision
        """All changes up to here were received."""
        self.floor = revision
        """Answers older than this revision are not cached."""
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
        """Drops entries from the oldest on, while they have expired or the weight exceeds
        `weight_max`."""
        while self.entries:
            key, entry = next(iter(self.entries.items()))
            if now < entry.ends_at and self.weight <= weight_max:
                return
            self.drop(key)


class DecisionCache(Generic[T]):
    """Caches answers of type `T` by the rules above.

    The follower of the change stream calls `changed`, `resync` and `renew` in the order of the
    stream.

    Example::

        cache: DecisionCache[Decision] = DecisionCache(entries_max=1_000)
        key = key_of("Check", request)
        given = cache.get_or_ask(key, ask)  # ask() returns a Fresh[Decision]
        if given.answer.effect is Effect.ALLOW: ...
    """

    def __init__(
        self,
        *,
        entries_max: int = 10_000,
        age_seconds_max: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: the clock of `Fresh.sent_at` and of the ends of leases, in seconds."""
        self._entries_max = entries_max
        self._age_seconds_max = age_seconds_max
        self._clock = clock
        self._lock = threading.Lock()
        self._state: _State[T] = _State("", 0)
        self._asking: dict[bytes, Future[None]] = {}

    @property
    def size(self) -> int:
        """The number of entries."""
        return len(self._state.entries)

    @property
    def weight(self) -> int:
        """The number of answers in all entries; at most `entries_max`."""
        return self._state.weight

    @property
    def in_flight(self) -> int:
        """The number of keys with a question in flight."""
        return len(self._asking)

    @property
    def lease_ends_at(self) -> float:
        """The end of the last lease (seconds of the clock); minus infinity: there was none."""
        return self._state.lease_ends_at

    @property
    def live(self) -> bool:
        """Whether there is a lease now."""
        return self._clock() < self.lease_ends_at

    @property
    def position(self) -> tuple[str, int]:
        """Epoch and revision up to which all changes were received; an empty epoch: none yet."""
        with self._lock:
            return self._state.epoch, self._state.received

    # --- lookup -------------------------------------------------------------------------------

    def find(self, key: bytes, *, overtime_seconds: float = 0.0) -> T | None:
        """The cached answer if it may be served now, or up to `overtime_seconds` after the end of
        the lease."""
        # The module's docstring says why the reads are in this order.
        state = self._state
        lease_ends_at = state.lease_ends_at
        entry = state.entries.get(key)
        if entry is None:
            return None
        now = self._clock()
        if now < entry.ends_at and now < lease_ends_at + overtime_seconds:
            return entry.answer
        return None

    def get_or_ask(
        self, key: bytes, ask: Callable[[], Fresh[T]], *, wait_seconds: float | None = None
    ) -> Given[T]:
        """The cached answer, or the result of `ask`. Exceptions of `ask` propagate.

        If several threads look for a key at the same time, the first asks, and the others wait for
        it, at most `wait_seconds` (None: without limit). They get its answer only if it was cached,
        because an answer that was not may be older than a change committed before they came.
        Otherwise they ask too.
        """
        answer = self.find(key)
        if answer is not None:
            return Given(answer, cached=True)
        asking, mine = self.claim(key)
        try:
            if not mine:
                wait([asking], wait_seconds)
            # Another thread may have cached an answer since this one looked.
            answer = self.find(key)
            return self._ask(key, ask) if answer is None else Given(answer, cached=True)
        finally:
            if mine:
                self.release(key, asking)

    def claim(self, key: bytes) -> "tuple[Future[None], bool]":
        """Claims the question for a key. The caller that gets True asks, and must `release` the key
        afterwards. Every other caller waits for the future and looks again: an answer is shared
        only through the cache."""
        asking: Future[None] = Future()
        if not self.live:  # nothing would be cached, so there is nothing to wait for
            return asking, True
        with self._lock:
            other = self._asking.setdefault(key, asking)
        return other, other is asking

    def release(self, key: bytes, asking: "Future[None]") -> None:
        """Ends a claim; the question was answered, or failed."""
        with self._lock:
            if self._asking.get(key) is asking:
                del self._asking[key]
        asking.set_result(None)

    def forget(self, key: bytes) -> None:
        """Drops the entry of a key."""
        with self._lock:
            self._state.drop(key)

    def _ask(self, key: bytes, ask: Callable[[], Fresh[T]]) -> Given[T]:
        fresh = ask()
        self.keep(key, fresh)
        return Given(fresh.answer, cached=False)

    def keep(self, key: bytes, fresh: Fresh[T]) -> None:
        """Caches an answer if the rules allow it."""
        seconds = fresh.reusable_seconds or 0.0
        ends_at = fresh.sent_at + min(seconds, self._age_seconds_max)
        with self._lock:
            state, now = self._state, self._clock()
            # This answer is newer: even if it is not cached, it replaces the older one.
            state.drop(key)
            if (
                not fresh.touched.user_id
                or not fresh.epoch
                or fresh.epoch != state.epoch
                or fresh.revision < state.floor
                or not now < min(ends_at, state.lease_ends_at)
                or fresh.weight > self._entries_max
            ):
                return
            state.drop_oldest(now, self._entries_max - fresh.weight)
            names = tuple(_names(fresh.touched))
            state.add(key, _Entry(fresh.answer, ends_at, names, fresh.weight))

    # --- called by the follower of the change stream ------------------------------------------

    def changed(self, changes: Sequence[ChangedKey], revision: int) -> None:
        """Drops the affected entries. All changes up to `revision` have now been received."""
        with self._lock:
            state = self._state
            for change in changes:
                if _DROPPED_EXACTLY.get(change.kind) == len(change.key):
                    state.drop_named((change.kind, tuple(change.key)))
                else:
                    state.drop_all()
            # If `revision` does not increase, these changes belong to the next revision: their
            # entries were dropped, so an answer older than it must not be cached any more.
            state.floor = max(state.floor, revision, state.received + 1 if changes else 0)
            state.received = max(state.received, revision)

    def resync(self, epoch: str, revision: int) -> None:
        """Drops all entries and the lease. The stream continues after `revision`; an empty epoch:
        where it continues is not known yet."""
        with self._lock:
            self._resync(epoch, revision)

    def renew(self, revision: int, epoch: str, ends_at: float) -> None:
        """Renews the lease: all changes up to `revision` were received, and it ends at `ends_at`
        (monotonic seconds), which may be earlier than before.

        Another epoch is a resync. A renewal below a received revision (a stream that contradicts
        itself) is ignored.
        """
        with self._lock:
            if epoch != self._state.epoch:
                self._resync(epoch, revision)
            state = self._state
            if not epoch or revision < state.received:
                return
            state.received = revision
            state.floor = max(state.floor, revision)
            state.drop_oldest(self._clock(), self._entries_max)
            state.lease_ends_at = ends_at  # last, because it covers only the entries that are left

    def _resync(self, epoch: str, revision: int) -> None:
        self._state = _State(epoch, revision)


def _names(touched: Touched) -> Iterator[_Name]:
    yield CHANGE_KIND_USER, (touched.user_id,)
    if touched.organization_id:
        yield CHANGE_KIND_ORGANIZATION, (touched.organization_id,)
    for resource in touched.resources:
        yield CHANGE_KIND_RESOURCE, resource
