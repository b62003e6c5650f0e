"""Writes decision records to segments; returns only once they survive a crash.

One thread writes. It takes all waiting records, writes and syncs them together, and then wakes the
callers: under load, more callers share one sync. It also folds equal denials, and refuses denials
of callers that have used up their share of the log.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from pdp.audit.counts import encode_count
from pdp.audit.folding import Fold, Folds
from pdp.audit.records import DecisionRecord, encode_with_key, new_salts
from pdp.audit.segments import FRAME_OVERHEAD, KIND_GAP, KIND_RECORD, check_origin
from pdp.audit.shares import Shares
from pdp.audit.write_queue import Entry, Item, RecordQueue, settle, wake
from pdp.audit.writer import LogWriter, Synced
from pdp.clock import Clock, wall_clock
from pdp.concurrency.pacing import Pace
from pdp.errors import AuditUnavailable, ShareExceeded
from pdp.gauges import Gauges
from pdp.model import Effect

WAIT_SECONDS_MAX: Final = 0.25
SEGMENT_BYTES: Final = 16 << 20
REOPEN_SECONDS: Final = 0.1
WATCH_SECONDS: Final = 1.0
STEADY_SECONDS: Final = 1.0
STOP_SECONDS_MAX: Final = 5.0
COUNT_BYTES: Final = 128 + FRAME_OVERHEAD
"""The size of a count frame that a caller is charged."""

_LATE: Final = "the decision could not be recorded in time"
_NOT_WRITTEN: Final = "the decision could not be recorded"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RecorderCounts:
    """Counters for metrics; `waiting` is a gauge."""

    recorded: int
    """Records that were synced."""
    dropped: int
    """Allows that were not recorded; gaps in the log count them."""
    failures: int
    """Failed writes, syncs and new segments, and segments that others moved or changed."""
    waiting: int
    """Records in the queue."""
    folded: int
    """Denials that were folded into the record of an equal one."""
    refused: int
    """Denials that were refused because the share of their caller was used up."""


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
        covered: Callable[[str], int] = lambda _: 0,
    ) -> None:
        """Creates nothing on disk yet; see `start`.

        Args:
            directory: The parent of the directories of all origins.
            origin: The name of this origin.
            clock: The time of gaps.
            segment_bytes: The size at which the next segment begins.
            shares: How much each caller may write; None: no limit.
            covered: Returns the position up to which checkpoints cover a log, by its id. A log that
                ends before is not continued.

        Raises:
            ValueError: `origin` cannot be the name of a directory.
        """
        self.directory: Final = directory / check_origin(origin)
        self.origin: Final = origin
        self._segment_bytes = segment_bytes
        self._on_synced: Callable[[], None] = lambda: None

        self._queue = RecordQueue()
        self._thread: threading.Thread | None = None
        # Only the writer thread uses the following.
        self._clock = clock
        self._settled_at: float | None = None
        self._writer = LogWriter(self.directory, origin, clock, covered)
        self._folds = Folds("")
        self._shares = shares
        self._over_share: Counter[str] = Counter()
        """Callers that have used up their share, and the number of their refused records."""
        self._failing = False
        """Whether there was no segment to write to at the last check."""
        self._retry_at = 0.0
        self._failed_at = 0.0
        self._logged: set[str] = set()
        """The events of the current failure that were logged."""
        self._recorded = self._failures = self._folded = self._refused = 0

    # --- for the rest of the process ------------------------------------------------------------

    def start(self) -> None:
        """Locks the origin, recovers the log of the last process, and begins a new segment.

        Raises:
            AuditUnavailable: Another process has the origin, or the directory cannot be used.
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
        """Writes the waiting records and stops. Later calls raise AuditUnavailable."""
        self._queue.close()
        if self._thread is None:
            return
        self._thread.join(STOP_SECONDS_MAX)
        if self._thread.is_alive():
            # The device hangs. The lock is held until the process ends: the thread may still write.
            _log.error("audit_recorder_hangs", origin=self.origin)
            return
        self._thread = None

    async def record(self, records: Iterable[DecisionRecord]) -> Sequence[str]:
        """Records decisions of one caller; returns once all of them are synced. Suspends without
        occupying a thread, and gives way to other requests while it encodes many.

        Returns:
            For each record, the decision id to answer with: that of an equal denial if it was
            folded.

        Raises:
            AuditUnavailable: The queue is full, the write failed, or it takes longer than 250 ms.
                The records may be in the log or not.
            ShareExceeded: The caller has used up its share; nothing is recorded.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        entry = await _entry(records, waiter)
        if not entry.items:
            return ()
        self._queue.put(entry, time.monotonic())
        # Cheaper than asyncio.timeout, which matters at many denials per second.
        timer = loop.call_later(WAIT_SECONDS_MAX, settle, (waiter,), False)
        try:
            if not await waiter:
                self._queue.withdraw(entry)
                raise AuditUnavailable(_LATE)
        finally:
            timer.cancel()
        return entry.outcome()

    async def try_write(self, records: Iterable[DecisionRecord]) -> None:
        """Queues records of one caller, and does not wait until they are written. If the queue is
        full, they are dropped and counted in a gap.

        Raises:
            AuditUnavailable: `stop` was called.
        """
        entry = await _entry(records)
        if entry.items:
            self._queue.try_write(entry)

    def ready(self) -> bool:
        """Returns whether there is a segment to write to and the writer thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive() and not self._failing

    def synced(self) -> Synced:
        """Returns how far the log is synced. Bytes after that are not part of it."""
        return self._writer.synced

    def settled_at(self) -> float | None:
        """Returns a time: all records that were queued before it are synced, or counted as dropped.
        None: not known yet."""
        return self._settled_at

    def on_synced(self, callback: Callable[[], None]) -> None:
        """Calls `callback` after each sync, on the writer thread. It must return quickly."""
        self._on_synced = callback

    def mark_shipped(self, log_id: str, position: int) -> None:
        """Records that all frames of a log before `position` are shipped."""
        self._writer.mark_shipped(log_id, position)

    def mark_deleted(self, log_id: str, position: int) -> None:
        """Records that a log's segments before `position` are deleted. Their unshipped frames
        become a gap with a count."""
        self._writer.mark_deleted(log_id, position)

    def counts(self) -> RecorderCounts:
        """Returns the counters for metrics."""
        return RecorderCounts(
            recorded=self._recorded,
            dropped=self._queue.dropped,
            failures=self._failures + self._writer.losses,
            waiting=self._queue.records,
            folded=self._folded,
            refused=self._refused,
        )

    def gauges(self) -> Gauges:
        """Returns the gauges for metrics."""
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
        is_running = True
        while is_running:
            # Without a segment, retries to create one.
            patience = WATCH_SECONDS if self._writer.is_open else REOPEN_SECONDS
            began = self._clock()
            entries, dropped, is_running = self._queue.take(patience)
            took_all = not self._queue.records
            if entries or dropped:
                self._write(entries, dropped)
            elif is_running and self._has_segment():
                self._attempt("audit_segment_not_restored", self._writer.check_files)
                self._failing = not self._writer.is_open
            if took_all:
                self._settled_at = began
        self._writer.close()
        self._settled_at = self._clock()

    def _write(self, entries: list[Entry], dropped: int) -> None:
        bodies, admitted = self._compose(entries)
        written = True
        if bodies or dropped:
            written = self._has_segment() and self._attempt(
                "audit_write_failed", lambda: self._writer.append(bodies, dropped)
            )
        if not written:
            self._folds = Folds("")  # increased counts are not in the log
            self._queue.mark_unwritten([entry for entry, _ in admitted], dropped)
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
        """Returns the frames of a batch, and its entries with the ids of their records. Finishes
        the entries of callers that have used up their share."""
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
        """Returns why the caller of an entry may not write now. Entries without a waiter may: the
        queue drops and counts them if it is full."""
        if self._shares is None or not entry.waits:
            return None
        caller = entry.caller
        try:
            self._shares.require(caller, now)
        except ShareExceeded as error:
            if caller not in self._over_share:
                _log.warning("audit_share_exceeded", caller=caller, maximum=error.metadata)
            self._over_share[caller] += len(entry.items)
            self._refused += len(entry.items)
            return error
        if caller in self._over_share and self._shares.is_half_full(caller, now):
            _log.info("audit_share_left_again", caller=caller, refused=self._over_share.pop(caller))
        return None

    def _has_segment(self) -> bool:
        writer = self._writer
        due = not writer.is_open and time.monotonic() >= self._retry_at
        if due and not self._attempt("audit_segment_not_created", writer.check_files):
            self._retry_at = time.monotonic() + REOPEN_SECONDS
        self._failing = not writer.is_open
        return writer.is_open

    def _attempt(self, event: str, write: Callable[[], None]) -> bool:
        """Returns whether `write` succeeded. Logs the begin and the end of a failure once."""
        try:
            write()
        except OSError as error:
            self._failures += 1
            self._failed_at = time.monotonic()
            if event not in self._logged:
                self._logged.add(event)
                _log.error(event, origin=self.origin, errno=error.errno, error=str(error))
            return False
        if self._logged and time.monotonic() - self._failed_at > STEADY_SECONDS:
            self._logged.clear()
            _log.info("audit_writes_again", origin=self.origin)
        return True


async def _entry(
    records: Iterable[DecisionRecord], waiter: "asyncio.Future[bool] | None" = None
) -> Entry:
    """Raises AuditUnavailable if a record cannot be encoded."""
    caller, items, pace = "", [], Pace()
    try:
        for record, salt in zip(records, new_salts(), strict=False):
            caller = record.caller
            items.append(_item(record, salt))
            if pace.is_over():
                await pace.give_way()
    except ValueError as error:
        raise AuditUnavailable(f"the decision cannot be recorded: {error}") from None
    return Entry(caller, items, waiter=waiter)


def _item(record: DecisionRecord, salt: str) -> Item:
    payload, key = encode_with_key(record, salt)
    # Queries are folded too: the records of their pages are equal.
    folds = record.effect is Effect.DENY or record.query is not None
    return Item(payload, record.decision_id, record.decided_at, key if folds else None)
