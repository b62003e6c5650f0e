"""Writes decision records to segments; returns only once they survive a crash.

One thread writes. It takes what is waiting, writes and syncs it at once, and only then lets those
go who wait for it: the more wait, the more share one sync. A write or sync that failed is never
tried again and believed (a second fsync may succeed though the pages are gone): its waiters get
AuditUnavailable, and a new segment says where the old one stopped being part of the log.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import structlog

from pdp.audit.queue import Entry, RecordQueue
from pdp.audit.records import encode
from pdp.audit.segments import (
    KIND_GAP,
    KIND_RECORD,
    LENGTH,
    LOCK_NAME,
    NO_DIGEST,
    DamagedSegmentError,
    Header,
    Place,
    check_origin,
    create_segment,
    find_end,
    list_segments,
    make_directory,
    new_log_id,
    write_all,
)
from pdp.clock import Clock, wall_clock
from pdp.errors import AuditUnavailable
from pdp.model import DecisionRecord

WAIT_SECONDS_MAX: Final = 0.25
SEGMENT_BYTES: Final = 16 << 20
REOPEN_SECONDS: Final = 0.1
LOCK_SECONDS_MAX: Final = 5.0
STOP_SECONDS_MAX: Final = 5.0

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
    """Writes or syncs that failed."""
    waiting: int
    """Records in the queue."""


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
    ) -> None:
        """Raises ValueError where `origin` cannot name a directory."""
        self.directory: Final = directory / check_origin(origin)
        self.origin: Final = origin
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._on_synced: Callable[[], None] = lambda: None

        self._queue = RecordQueue()
        self._thread: threading.Thread | None = None
        self._lock_file: int | None = None
        # The writer's own from here on; `_end` is read by others, whole.
        self._descriptor: int | None = None
        self._log_id = ""
        self._end = Place(0, 0, 0, NO_DIGEST)
        self._reopen_at = 0.0
        self._failing = False
        self._recorded = self._failures = 0

    # --- for the rest of the process ------------------------------------------------------------

    def start(self) -> None:
        """Takes the origin, recovers what the last process left, and begins a new segment.

        Raises AuditUnavailable: another process has the origin, or the directory cannot be used.
        """
        try:
            make_directory(self.directory)
            self._lock_file = take_lock(self.directory, LOCK_SECONDS_MAX)
            if self._lock_file is None:
                raise AuditUnavailable(
                    f"another process records as {self.origin!r} in {self.directory.parent}"
                )
            try:
                self._recover()
                self._open_next()
            except OSError:
                self._release_lock()
                raise
        except OSError as error:
            raise AuditUnavailable(
                f"the audit directory {self.directory} cannot be used: {error.strerror}"
            ) from None
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
        self._release_lock()

    def record(self, records: Sequence[DecisionRecord]) -> None:
        """Returns once all of `records` are synced.

        Raises AuditUnavailable where that fails or takes longer than 250 ms; the records may then
        be in the log or not.
        """
        if not records:
            return
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        entry = Entry(_encode_all(records), waits=True)
        self._queue.put(entry, deadline)
        if not entry.wait(deadline):
            self._queue.withdraw(entry)
            raise AuditUnavailable(_LATE)
        if not entry.written:
            raise AuditUnavailable(_NOT_WRITTEN)

    async def record_from_loop(self, records: Sequence[DecisionRecord]) -> None:
        """The same as `record`, for an event loop: many wait, and no thread does.

        Raises AuditUnavailable at once where there is no room.
        """
        if not records:
            return
        loop = asyncio.get_running_loop()
        in_time: asyncio.Future[bool] = loop.create_future()

        def say(answer: bool) -> None:
            if not in_time.done():
                in_time.set_result(answer)

        def tell() -> None:
            # The loop may be gone where the process is ending.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(say, True)

        entry = Entry(_encode_all(records), waits=True, when_done=tell)
        self._queue.put(entry, time.monotonic())
        # Cheaper than asyncio.timeout, which many denials a second would notice.
        timer = loop.call_later(WAIT_SECONDS_MAX, say, False)
        try:
            if not await in_time:
                self._queue.withdraw(entry)
                raise AuditUnavailable(_LATE)
        finally:
            timer.cancel()
        if not entry.written:
            raise AuditUnavailable(_NOT_WRITTEN)

    def offer(self, records: Sequence[DecisionRecord]) -> None:
        """Records soon, if there is room, and never waits. What is dropped is counted in the log.

        Raises AuditUnavailable after `stop`.
        """
        if records:
            self._queue.offer(Entry(_encode_all(records), waits=False))

    def ready(self) -> bool:
        """Whether the last attempt to write worked and the writer lives."""
        thread = self._thread
        return thread is not None and thread.is_alive() and not self._failing

    def synced(self) -> Place:
        """How far the log is known to be on disk. Nothing behind it may be read as part of it."""
        return self._end

    def on_synced(self, callback: Callable[[], None]) -> None:
        """Has `callback` called, quickly, by the writer after each sync."""
        self._on_synced = callback

    def counts(self) -> RecorderCounts:
        """For metrics."""
        return RecorderCounts(
            self._recorded, self._queue.dropped, self._failures, self._queue.records
        )

    # --- the writer ------------------------------------------------------------------------------

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            # While there is no segment, it looks by itself whether one can be made again.
            patience = REOPEN_SECONDS if self._descriptor is None else None
            entries, dropped, goes_on = self._queue.take(patience)
            self._write(entries, dropped)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, entries: list[Entry], dropped: int) -> None:
        something = bool(entries or dropped)
        written = self._has_segment() and something and self._append(entries, dropped)
        if something and not written:
            self._queue.not_written(entries, dropped)
        for entry in entries:
            entry.finish(written=written)
        if written:
            self._on_synced()
        if self._end.byte_offset >= self._segment_bytes:
            self._close_segment()
            self._has_segment()

    def _append(self, entries: list[Entry], dropped: int) -> bool:
        """Writes and syncs; whether that worked. Ends the segment where it did not."""
        end, descriptor = self._end, self._descriptor
        assert descriptor is not None  # noqa: S101  # narrows the type
        digest, pack, frames = end.digest, LENGTH.pack, 0
        parts: list[bytes] = []
        bodies = [KIND_RECORD + payload for entry in entries for payload in entry.payloads]
        if dropped:
            bodies.insert(0, KIND_GAP + self._encode_gap(dropped))
        for body in bodies:
            digest = sha256(digest + body).digest()
            parts += (pack(len(body)), digest, body)
            frames += 1
        content = b"".join(parts)
        try:
            write_all(descriptor, content)
            os.fdatasync(descriptor)
        except OSError as error:
            self._failures += 1
            self._failing = True
            _log.error("audit_write_failed", origin=self.origin, errno=error.errno)
            self._close_segment()
            self._has_segment()
            return False
        self._end = Place(
            end.sequence, end.byte_offset + len(content), end.position + frames, digest
        )
        self._recorded += frames - bool(dropped)
        return True

    def _encode_gap(self, dropped: int) -> bytes:
        gap = {"dropped": dropped, "noticed_at": float(self._clock())}
        return json.dumps(gap, separators=(",", ":")).encode("ascii")

    # --- segments --------------------------------------------------------------------------------

    def _has_segment(self) -> bool:
        if self._descriptor is None and time.monotonic() >= self._reopen_at:
            try:
                self._open_next()
            except OSError as error:
                self._failing = True
                self._reopen_at = time.monotonic() + REOPEN_SECONDS
                _log.error("audit_segment_not_created", origin=self.origin, errno=error.errno)
        return self._descriptor is not None

    def _open_next(self) -> None:
        end = self._end
        header = Header(
            origin=self.origin,
            log_id=self._log_id,
            sequence=end.sequence + 1,
            position=end.position,
            previous_digest=end.digest,
            previous_bytes=end.byte_offset,
        )
        self._descriptor, self._end = create_segment(self.directory, header)
        self._failing = False

    def _close_segment(self) -> None:
        """Lets go of the segment. What stands in it behind `_end` is cut off where that works;
        the next header says where it ended in any case."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.ftruncate(descriptor, self._end.byte_offset)
        except OSError as error:
            _log.warning("audit_tail_not_cut", origin=self.origin, errno=error.errno)
        finally:
            os.close(descriptor)

    def _recover(self) -> None:
        """Finds where the log ends. Bytes behind that were never acknowledged."""
        for leftover in self.directory.glob("*.new"):
            leftover.unlink()
        self._log_id = new_log_id()
        segments = list_segments(self.directory)
        if not segments:
            return
        sequence, path = segments[-1]
        try:
            header, end = find_end(path)
        except DamagedSegmentError as error:
            # Kept as it is, for people. A log of its own goes on behind it.
            _log.error("audit_segment_damaged", segment=path.name, what=str(error))
            self._end = Place(sequence, 0, 0, NO_DIGEST)
            return
        self._log_id, self._end = header.log_id, end
        # It may be in memory only: it must be on disk before a header says that it is there.
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            torn = os.fstat(descriptor).st_size - end.byte_offset
            if torn:
                _log.warning("audit_torn_tail_cut", segment=path.name, bytes=torn)
                os.ftruncate(descriptor, end.byte_offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _release_lock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None


def take_lock(directory: Path, seconds_max: float) -> int | None:
    """Takes an origin for this process; None where another one keeps it. Close to give it back.

    Waits a little: a shipper takes the origin of a process that is gone for a moment at a time.
    Raises OSError.
    """
    descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds_max
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)
        else:
            return descriptor


def _encode_all(records: Sequence[DecisionRecord]) -> list[bytes]:
    try:
        return [encode(record) for record in records]
    except ValueError as error:
        raise AuditUnavailable(f"the decision cannot be recorded: {error}") from None
