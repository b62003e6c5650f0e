"""The bounded queue between callers and the single writer thread."""

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
    """One record to write."""

    payload: bytes
    decision_id: str
    decided_at: float
    key: bytes | None
    """Digest of all fields except id and time; None: the record is not folded."""


class Entry:
    """The records of one call, which are written together in one batch."""

    __slots__ = ("_ids", "_refusal", "caller", "items", "size", "waiter", "waits")

    def __init__(
        self,
        caller: str,
        items: Sequence[Item],
        *,
        waiter: "asyncio.Future[bool] | None" = None,
    ) -> None:
        """Creates an entry without an outcome.

        Args:
            caller: The name of the caller.
            items: Its records.
            waiter: Becomes True once the outcome is known, False after a timeout; None: the caller
                does not wait.
        """
        self.caller: Final = caller
        self.items: Final = items
        self.size: Final = sum(len(item.payload) for item in items)
        self.waiter: Final = waiter
        self.waits: Final = waiter is not None
        self._ids: Sequence[str] = ()
        self._refusal: PdpError | None = None

    def finish(self, ids: Sequence[str], refusal: PdpError | None) -> None:
        """Sets the outcome; `wake` then wakes the caller.

        Args:
            ids: For each item, the decision id of its record, which may be that of an equal denial.
            refusal: Why nothing was written; None: the records are written.
        """
        self._ids = ids
        self._refusal = refusal

    def outcome(self) -> Sequence[str]:
        """Returns the ids of `finish`, or raises its refusal."""
        if self._refusal is not None:
            raise self._refusal
        return self._ids


def wake(entries: Iterable[Entry]) -> None:
    """Wakes the callers of finished entries; from any thread.

    Makes one call for each event loop: a call costs as much as a small record.
    """
    waiters: dict[asyncio.AbstractEventLoop, list[asyncio.Future[bool]]] = {}
    for entry in entries:
        if entry.waiter is not None:
            waiters.setdefault(entry.waiter.get_loop(), []).append(entry.waiter)
    for loop, loop_waiters in waiters.items():
        # The loop may be closed if the process is stopping.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, loop_waiters, True)


def settle(waiters: Iterable["asyncio.Future[bool]"], answer: bool) -> None:
    """Sets the result of waiters that have none yet. Call it on their event loop."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(answer)


class RecordQueue:
    """A first-in, first-out queue of entries: at most QUEUE_RECORDS_MAX records, or one entry.

    Many threads put, one takes. A closed queue refuses entries.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._space = threading.Condition(self._lock)
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._open = False
        self._taker_waits = False
        self._dropped_since = 0
        self.records = 0
        """Records in the queue."""
        self.dropped = 0
        """Records without a waiter that were refused or not written, in total."""

    def open(self) -> None:
        """Accepts entries."""
        with self._lock:
            self._open = True

    def close(self) -> None:
        """Refuses further entries, and wakes all waiting threads."""
        with self._lock:
            self._open = False
            self._work.notify()
            self._space.notify_all()

    def put(self, entry: Entry, deadline: float) -> None:
        """Adds an entry; waits for space until `deadline` (monotonic seconds).

        Raises:
            AuditUnavailable: The queue is full or closed.
        """
        with self._lock:
            while self._open and not self._fits(entry):
                if not self._space.wait(max(0.0, deadline - time.monotonic())):
                    raise AuditUnavailable("too many decisions are waiting to be recorded")
            self._append(entry)

    def try_write(self, entry: Entry) -> None:
        """Adds an entry, or drops and counts it if it is full. Raises AuditUnavailable: closed."""
        with self._lock:
            if self._open and not self._fits(entry):
                self._drop(entry)
            else:
                self._append(entry)

    def withdraw(self, entry: Entry) -> None:
        """Removes an entry whose caller waits no more, unless the writer has taken it already."""
        with self._lock:
            if entry in self._entries:
                self._entries.remove(entry)
                self._subtract(entry)

    def take(self, seconds_max: float | None) -> tuple[list[Entry], int, bool]:
        """Takes the next batch; waits up to `seconds_max` (None: without a limit) for entries.

        Returns:
            The entries, the number of records that were dropped since the last call, and whether
            to call again.
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
                self._subtract(entry)
                taken.append(entry)
            dropped, self._dropped_since = self._dropped_since, 0
            return taken, dropped, self._open or bool(taken)

    def mark_unwritten(self, entries: list[Entry], dropped: int) -> None:
        """Counts as dropped what `take` returned and could not be written."""
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

    def _subtract(self, entry: Entry) -> None:
        self.records -= len(entry.items)
        self._bytes -= entry.size
        self._space.notify()

    def _drop(self, entry: Entry) -> None:
        self.dropped += len(entry.items)
        self._dropped_since += len(entry.items)
