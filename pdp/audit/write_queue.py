"""The bounded queue between those who record and the one thread that writes."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from pdp.errors import AuditUnavailable, PdpError

BATCH_RECORDS_MAX: Final = 256
QUEUE_RECORDS_MAX: Final = 4096
QUEUE_BYTES_MAX: Final = 8 << 20


class Item(NamedTuple):
    """One record to be written."""

    payload: bytes
    decision_id: str
    decided_at: float
    key: bytes | None
    """Digest of all fields but id and time; None: it is not folded."""


class Entry:
    """What one call put into the queue: written whole, in one batch."""

    __slots__ = ("_ids", "_refusal", "caller", "items", "size", "waiter", "waits")

    def __init__(
        self,
        caller: str,
        items: Sequence[Item],
        *,
        waiter: "asyncio.Future[bool] | None" = None,
    ) -> None:
        """`waiter` becomes True once the outcome is known, False if that takes too long; None:
        nobody waits."""
        self.caller: Final = caller
        self.items: Final = items
        self.size: Final = sum(len(item.payload) for item in items)
        self.waiter: Final = waiter
        self.waits: Final = waiter is not None
        self._ids: Sequence[str] = ()
        self._refusal: PdpError | None = None

    def finish(self, ids: Sequence[str], refusal: PdpError | None) -> None:
        """Sets the outcome; `wake` then lets the one who waits go on.

        Args:
            ids: For each item, the decision id of the record that stands for it.
            refusal: Why nothing was written; None: it was.
        """
        self._ids = ids
        self._refusal = refusal

    def outcome(self) -> Sequence[str]:
        """The ids that `finish` was given, or raises its refusal."""
        if self._refusal is not None:
            raise self._refusal
        return self._ids


def wake(entries: Iterable[Entry]) -> None:
    """Lets those go on who wait for finished entries, from any thread.

    Each event loop is called once for all of its entries: a call costs as much as a small record.
    """
    waiters: dict[asyncio.AbstractEventLoop, list[asyncio.Future[bool]]] = {}
    for entry in entries:
        if entry.waiter is not None:
            waiters.setdefault(entry.waiter.get_loop(), []).append(entry.waiter)
    for loop, some in waiters.items():
        # The loop may be gone where the process is ending.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, some, True)


def settle(waiters: Iterable["asyncio.Future[bool]"], answer: bool) -> None:
    """Answers waiters that have no answer yet. To be called on their event loop."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(answer)


class RecordQueue:
    """Entries in the order of their coming. Holds at most QUEUE_RECORDS_MAX records, or one entry.

    Many threads put, one takes. A queue that is closed takes nothing more in.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._open = False
        self._taker_waits = False
        self._dropped_since = 0
        self.records = 0
        """Waiting now."""
        self.dropped = 0
        """Not taken in, or not written though nobody waited for them; ever."""

    def open(self) -> None:
        """Lets entries in."""
        with self._lock:
            self._open = True

    def close(self) -> None:
        """Lets nothing more in, and wakes whoever waits."""
        with self._lock:
            self._open = False
            self._work.notify()
            self._room.notify_all()

    def put(self, entry: Entry, deadline: float) -> None:
        """Waits for room until `deadline`. Raises AuditUnavailable: there was none, or closed."""
        with self._lock:
            while self._open and not self._fits(entry):
                if not self._room.wait(max(0.0, deadline - time.monotonic())):
                    raise AuditUnavailable("too many decisions are waiting to be recorded")
            self._append(entry)

    def offer(self, entry: Entry) -> None:
        """Drops and counts the entry where there is no room. Raises AuditUnavailable if closed."""
        with self._lock:
            if self._open and not self._fits(entry):
                self._drop(entry)
            else:
                self._append(entry)

    def withdraw(self, entry: Entry) -> None:
        """Takes an entry back that nobody waits for any more, unless the writer has it already."""
        with self._lock:
            if entry in self._entries:
                self._entries.remove(entry)
                self._leave(entry)

    def take(self, seconds_max: float | None) -> tuple[list[Entry], int, bool]:
        """What to write next: entries, how many records were dropped, and whether it goes on.

        Waits, `seconds_max` at most (None: as long as it takes), while there is nothing to write.
        """
        with self._lock:
            if not self._entries and self._open:
                self._taker_waits = True
                self._work.wait(seconds_max)
                self._taker_waits = False
            taken: list[Entry] = []
            records = 0
            while self._entries:
                records += len(self._entries[0].items)
                if taken and records > BATCH_RECORDS_MAX:
                    break
                entry = self._entries.popleft()
                self._leave(entry)
                taken.append(entry)
            dropped, self._dropped_since = self._dropped_since, 0
            return taken, dropped, self._open or bool(taken)

    def not_written(self, entries: list[Entry], dropped: int) -> None:
        """Counts again what `take` gave out and could not be put on record."""
        with self._lock:
            self._dropped_since += dropped
            for entry in entries:
                if not entry.waits:
                    self._drop(entry)

    # --- the lock is held ------------------------------------------------------------------------

    def _fits(self, entry: Entry) -> bool:
        return not self._entries or (
            self.records + len(entry.items) <= QUEUE_RECORDS_MAX
            and self._bytes + entry.size <= QUEUE_BYTES_MAX
        )

    def _append(self, entry: Entry) -> None:
        if not self._open:
            raise AuditUnavailable("the audit log is closed")
        self._entries.append(entry)
        self.records += len(entry.items)
        self._bytes += entry.size
        if self._taker_waits:
            self._taker_waits = False
            self._work.notify()

    def _leave(self, entry: Entry) -> None:
        self.records -= len(entry.items)
        self._bytes -= entry.size
        self._room.notify()

    def _drop(self, entry: Entry) -> None:
        self.dropped += len(entry.items)
        self._dropped_since += len(entry.items)
