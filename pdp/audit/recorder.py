"""Writes decision records to segments; returns only once they survive a crash.

One thread writes. It takes what is waiting, writes and syncs it at once, and only then lets those
go who wait for it: the more wait, the more share one sync. On the way it folds equal denials, and
refuses those of callers that have used up their share of the log.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from pdp.audit.counts import encode_count
from pdp.audit.folding import Fold, Folds
from pdp.audit.records import encode_with_key
from pdp.audit.segments import FRAME_OVERHEAD, KIND_GAP, KIND_RECORD, check_origin
from pdp.audit.shares import Shares
from pdp.audit.write_queue import Entry, Item, RecordQueue, settle, wake
from pdp.audit.writer import LogWriter, Synced
from pdp.clock import Clock, wall_clock
from pdp.errors import AuditUnavailable, ShareExceeded
from pdp.gauges import Gauges
from pdp.model import DecisionRecord, Effect

WAIT_SECONDS_MAX: Final = 0.25
SEGMENT_BYTES: Final = 16 << 20
REOPEN_SECONDS: Final = 0.1
WATCH_SECONDS: Final = 1.0
STEADY_SECONDS: Final = 1.0
STOP_SECONDS_MAX: Final = 5.0
COUNT_BYTES: Final = 128 + FRAME_OVERHEAD
"""What a count frame is taken to be long, at a caller's expense."""

_LATE: Final = "the decision could not be recorded in time"
_NOT_WRITTEN: Final = "the decision could not be recorded"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RecorderCounts:
    """For metrics; all but `waiting` only ever grow."""

    recorded: int
    """Records synced."""
    dropped: int
    """Allows not recorded; the log says so itself, as gaps."""
    failures: int
    """Writes, syncs and new segments that failed, and segments that others moved or changed."""
    waiting: int
    """Records in the queue."""
    folded: int
    """Denials that were counted at an equal one's record."""
    refused: int
    """Denials that were refused because their caller's share was used up."""


class Recorder:
    """Records decisions of one origin under `directory / origin`.

    An origin belongs to one process at a time; name it after the machine and the process's number.
    Create it in the process that uses it (a thread does not survive a fork).
    """

    def __init__(
        self,
        directory: Path,
        origin: str,
        *,
        clock: Clock = wall_clock,
        segment_bytes: int = SEGMENT_BYTES,
        shares: Shares | None = None,
    ) -> None:
        """Raises ValueError where `origin` cannot name a directory.

        Args:
            directory: Where origins have their directories.
            origin: This one's name.
            clock: For gaps.
            segment_bytes: Where a segment ends and the next begins.
            shares: How much each caller may write; None: without a bound.
        """
        self.directory: Final = directory / check_origin(origin)
        self.origin: Final = origin
        self._segment_bytes = segment_bytes
        self._on_synced: Callable[[], None] = lambda: None

        self._queue = RecordQueue()
        self._thread: threading.Thread | None = None
        # The writing thread's own from here on.
        self._writer = LogWriter(self.directory, origin, clock)
        self._folds = Folds("")
        self._shares = shares
        self._over: Counter[str] = Counter()
        """Callers that have used up their share, and how much of theirs was refused."""
        self._failing = False
        """Whether there was no segment to write into when that was last looked at."""
        self._retry_at = 0.0
        self._failed_at = 0.0
        self._said: set[str] = set()
        """What of the failure that lasts was logged."""
        self._recorded = self._failures = self._folded = self._refused = 0

    # --- for the rest of the process ------------------------------------------------------------

    def start(self) -> None:
        """Takes the origin, recovers what the last process left, and begins a new segment.

        Raises AuditUnavailable: another process has the origin, or the directory cannot be used.
        """
        try:
            self._writer.open()
        except OSError as error:
            raise AuditUnavailable(
                f"the audit directory {self.directory} cannot be used: {error.strerror}"
            ) from None
        self._failing = not self._writer.is_open
        self._queue.open()
        self._thread = threading.Thread(target=self._run, name="audit-recorder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Writes what is waiting and ends. Later records raise AuditUnavailable."""
        self._queue.close()
        if self._thread is None:
            return
        self._thread.join(STOP_SECONDS_MAX)
        if self._thread.is_alive():
            # The device hangs. The lock stays until the process ends: the thread may still write.
            _log.error("audit_recorder_hangs", origin=self.origin)
            return
        self._thread = None

    async def record(self, records: Sequence[DecisionRecord]) -> Sequence[str]:
        """Records decisions of one caller. Returns once all of them are synced; waits on the event
        loop, without a thread.

        Returns:
            For each, the decision id to answer with: that of an equal denial if it was folded.

        Raises:
            AuditUnavailable: there is no room, the write failed, or it takes longer than 250 ms;
                the records may then be in the log or not.
            ShareExceeded: The caller has used up its share; nothing is recorded.
        """
        if not records:
            return ()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        entry = _entry(records, waiter)
        self._queue.put(entry, time.monotonic())
        # Cheaper than asyncio.timeout, which many denials a second would notice.
        timer = loop.call_later(WAIT_SECONDS_MAX, settle, (waiter,), False)
        try:
            if not await waiter:
                self._queue.withdraw(entry)
                raise AuditUnavailable(_LATE)
        finally:
            timer.cancel()
        return entry.outcome()

    def offer(self, records: Sequence[DecisionRecord]) -> None:
        """Records soon, if there is room, and never waits. What is dropped is counted in the log.

        Raises AuditUnavailable after `stop`.
        """
        if records:
            self._queue.offer(_entry(records))

    def ready(self) -> bool:
        """Whether there is a segment to write into and the writer lives."""
        thread = self._thread
        return thread is not None and thread.is_alive() and not self._failing

    def synced(self) -> Synced:
        """How far the log is known to be on disk. Nothing behind it may be read as part of it."""
        return self._writer.synced

    def on_synced(self, callback: Callable[[], None]) -> None:
        """Has `callback` called, quickly, by the writer after each sync."""
        self._on_synced = callback

    def note_shipped(self, log_id: str, position: int) -> None:
        """Notes that all frames of a log before `position` are at its destination."""
        self._writer.note_shipped(log_id, position)

    def note_gone(self, log_id: str, position: int) -> None:
        """Notes that a log's segments before `position` are gone. What of them was not shipped
        becomes a gap with a count."""
        self._writer.note_gone(log_id, position)

    def counts(self) -> RecorderCounts:
        """For metrics."""
        return RecorderCounts(
            recorded=self._recorded,
            dropped=self._queue.dropped,
            failures=self._failures + self._writer.losses,
            waiting=self._queue.records,
            folded=self._folded,
            refused=self._refused,
        )

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "pdp_audit_waiting_records": (
                "Decisions that wait to be written.",
                lambda: self.counts().waiting,
            ),
            "pdp_audit_dropped_records": (
                "Allows that were not recorded; the log says so itself.",
                lambda: self.counts().dropped,
            ),
            "pdp_audit_write_failures": (
                "Writes of the log that failed, and segments that others moved or changed.",
                lambda: self.counts().failures,
            ),
            "pdp_audit_folded_records": (
                "Denials that were counted at the record of an equal one.",
                lambda: self.counts().folded,
            ),
            "pdp_audit_share_refusals": (
                "Denials not given, because their caller's share of the log was used up.",
                lambda: self.counts().refused,
            ),
        }

    # --- the writer ------------------------------------------------------------------------------

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            # While there is no segment, it looks by itself whether one can be made again.
            patience = WATCH_SECONDS if self._writer.is_open else REOPEN_SECONDS
            entries, dropped, goes_on = self._queue.take(patience)
            if entries or dropped:
                self._write(entries, dropped)
            elif goes_on and self._has_segment():
                self._attempt("audit_segment_not_restored", self._writer.watch)
                self._failing = not self._writer.is_open
        self._writer.close()

    def _write(self, entries: list[Entry], dropped: int) -> None:
        bodies, admitted = self._compose(entries)
        written = True
        if bodies or dropped:
            written = self._has_segment() and self._attempt(
                "audit_write_failed", lambda: self._writer.append(bodies, dropped)
            )
        if not written:
            self._folds = Folds("")  # counts went up that are not in the log
            self._queue.not_written([entry for entry, _ in admitted], dropped)
            self._has_segment()
        if written:
            self._recorded += sum(body.startswith(KIND_RECORD) for body in bodies)
        for entry, ids in admitted:
            entry.finish(ids, None if written else AuditUnavailable(_NOT_WRITTEN))
        wake(entry for entry, _ in admitted)
        if written and bodies:
            self._on_synced()
        if self._writer.is_open and self._writer.synced.place.byte_offset >= self._segment_bytes:
            self._attempt("audit_segment_not_created", self._writer.rotate)
            self._failing = not self._writer.is_open

    def _compose(self, entries: list[Entry]) -> tuple[list[bytes], list[tuple[Entry, list[str]]]]:
        """The frames of a batch, and which entries they are of with the ids of their records.
        Entries whose caller has used up its share are finished here."""
        now = time.monotonic()
        if self._folds.log_id != self._writer.log_id:
            self._folds = Folds(self._writer.log_id)
        bodies: list[bytes] = []
        counted: dict[str, Fold] = {}
        admitted: list[tuple[Entry, list[str]]] = []
        refused: list[Entry] = []
        for entry in entries:
            refusal = self._refusal(entry, now)
            if refusal is not None:
                entry.finish((), refusal)
                refused.append(entry)
                continue
            size = 0
            ids: list[str] = []
            for item in entry.items:
                fold = None if item.key is None else self._folds.find(item.key, now)
                if fold is None:
                    bodies.append(KIND_RECORD + item.payload)
                    size += FRAME_OVERHEAD + len(item.payload)
                    if item.key is not None:
                        self._folds.begin(item.key, item.decision_id, item.decided_at, now)
                    ids.append(item.decision_id)
                    continue
                fold.occurrences += 1
                fold.last_decided_at = max(fold.last_decided_at, item.decided_at)
                size += 0 if fold.decision_id in counted else COUNT_BYTES
                counted[fold.decision_id] = fold
                ids.append(fold.decision_id)
                self._folded += 1
            if self._shares is not None and entry.waits:
                self._shares.charge(entry.caller, size, now)
            admitted.append((entry, ids))
        wake(refused)
        for fold in counted.values():
            count = encode_count(fold.decision_id, fold.occurrences, fold.last_decided_at)
            bodies.append(KIND_GAP + count)
        return bodies, admitted

    def _refusal(self, entry: Entry, now: float) -> ShareExceeded | None:
        """Why an entry's caller may not write now. Those who do not wait may: they are dropped
        and counted where there is no room."""
        if self._shares is None or not entry.waits:
            return None
        caller = entry.caller
        try:
            self._shares.require(caller, now)
        except ShareExceeded as error:
            if caller not in self._over:
                _log.warning("audit_share_exceeded", caller=caller, maximum=error.metadata)
            self._over[caller] += len(entry.items)
            self._refused += len(entry.items)
            return error
        if caller in self._over and self._shares.is_half_full(caller, now):
            _log.info("audit_share_left_again", caller=caller, refused=self._over.pop(caller))
        return None

    def _has_segment(self) -> bool:
        writer = self._writer
        due = not writer.is_open and time.monotonic() >= self._retry_at
        if due and not self._attempt("audit_segment_not_created", writer.watch):
            self._retry_at = time.monotonic() + REOPEN_SECONDS
        self._failing = not writer.is_open
        return writer.is_open

    def _attempt(self, event: str, write: Callable[[], None]) -> bool:
        """Whether `write` worked. A failure that lasts is logged when it begins and ends."""
        try:
            write()
        except OSError as error:
            self._failures += 1
            self._failed_at = time.monotonic()
            if event not in self._said:
                self._said.add(event)
                _log.error(event, origin=self.origin, errno=error.errno, error=str(error))
            return False
        if self._said and time.monotonic() - self._failed_at > STEADY_SECONDS:
            self._said.clear()
            _log.info("audit_writes_again", origin=self.origin)
        return True


def _entry(
    records: Sequence[DecisionRecord], waiter: "asyncio.Future[bool] | None" = None
) -> Entry:
    """Raises AuditUnavailable where a record cannot be written down."""
    try:
        items = [_item(record) for record in records]
    except ValueError as error:
        raise AuditUnavailable(f"the decision cannot be recorded: {error}") from None
    return Entry(records[0].caller, items, waiter=waiter)


def _item(record: DecisionRecord) -> Item:
    payload, key = encode_with_key(record)
    # Of a query too: its pages are equal.
    folds = record.effect is Effect.DENY or record.query is not None
    return Item(payload, record.decision_id, record.decided_at, key if folds else None)
