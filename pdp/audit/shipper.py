"""Brings segments to their destination, and deletes them once they are there completely.

A destination takes each record once, however often it is brought, so whatever is shipped again
(after a crash, by two shippers at once, from a directory put back from a backup) is there once.
The place that it remembers only saves work. A segment is deleted only by the pass that saw all of
it committed.
"""

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

import structlog

from pdp.audit.destinations import Destination
from pdp.audit.locks import LOCK_NAME, lock, take_lock
from pdp.audit.recorder import Recorder
from pdp.audit.segments import (
    KIND_RECORD,
    Damage,
    DamagedSegmentError,
    Frame,
    Header,
    Place,
    believed_bytes,
    list_segments,
    read_frames,
    read_header,
    segment_path,
)
from pdp.audit.writer import Synced
from pdp.errors import PdpError

RUN_FRAMES_MAX: Final = 1000
RUN_BYTES_MAX: Final = 1 << 20
GATHER_SECONDS: Final = 0.1
YIELD_FRAMES: Final = 16
YIELD_SECONDS: Final = 0.0002
IDLE_SECONDS: Final = 2.0
BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 2.0
STOP_SECONDS_MAX: Final = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ShipperCounts:
    """For metrics; all but `failing` only ever grow."""

    shipped: int
    """Records committed, or found to be there."""
    failures: int
    """Passes that the destination or a file ended."""
    damages: int
    """Segments that do not hold or were not taken whole, and logs older than their destination."""
    failing: bool
    """Whether the last pass failed: records wait in segments."""


class Shipper:
    """Ships the recorder's own log as it grows, and the logs under `directory` that no process
    holds any more. Without a recorder: only those."""

    def __init__(
        self, directory: Path, destination: Destination, recorder: Recorder | None = None
    ) -> None:
        self._directory = directory
        self._destination = destination
        self._recorder = recorder
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._done: dict[Path, Place] = {}
        """How far each file was seen to hold and to be committed."""
        self._kept: set[Path] = set()
        """Segments for people, never deleted."""
        self._through: set[Path] = set()
        """Those of them that are shipped as far as they go."""
        self._shipped = self._failures = self._damages = 0
        self._failing = False
        if recorder is not None:
            recorder.on_synced(self._wake.set)

    def start(self) -> None:
        """Begins to ship. The destination may be out of reach."""
        self._thread = threading.Thread(target=self._run, name="audit-shipper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ships what is there, if the destination answers, and ends. Stop the recorder first."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS_MAX)
            self._thread = None

    def counts(self) -> ShipperCounts:
        """For metrics."""
        failing = self._failing or (self._thread is not None and not self._thread.is_alive())
        return ShipperCounts(self._shipped, self._failures, self._damages, failing)

    def waiting_bytes(self) -> int:
        """How much of what is on disk the destination is not known to have. For metrics."""
        done, waiting = dict(self._done), 0
        for path in self._directory.glob("*/*.segment"):
            with contextlib.suppress(FileNotFoundError):  # it has just been shipped
                place = done.get(path)
                waiting += path.stat().st_size - (place.byte_offset if place else 0)
        return waiting

    def ship(self) -> None:
        """Ships all that is there now.

        Raises PdpError and OSError; what was committed by then stays.
        """
        recorder = self._recorder
        if recorder is not None:
            self._ship_own(recorder)
        if not self._directory.is_dir():
            return
        for directory in sorted(self._directory.iterdir()):
            if recorder is not None and directory == recorder.directory:
                continue
            while (directory / LOCK_NAME).is_file() and self._adopt(directory):
                # A process that starts now must find the log free for a moment.
                if self._stopping.wait(GATHER_SECONDS):
                    return

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = BACKOFF_SECONDS_MIN
        while True:
            last = self._stopping.is_set()
            self._wake.clear()
            try:
                self.ship()
            except (PdpError, OSError) as error:
                self._failures += 1
                if not self._failing:
                    _log.warning("audit_shipping_fails", error=type(error).__name__)
                self._failing = True
                self._stopping.wait(backoff)
                backoff = min(2 * backoff, BACKOFF_SECONDS_MAX)
            else:
                self._failing, backoff = False, BACKOFF_SECONDS_MIN
                if not last:
                    # A transaction for each sync would cost more than the syncs.
                    self._stopping.wait(GATHER_SECONDS)
                    self._wake.wait(IDLE_SECONDS)
            if last:
                return

    # --- one log ---------------------------------------------------------------------------------

    def _adopt(self, directory: Path) -> bool:
        """Ships the oldest segment of a log that no process holds; whether there was one."""
        if all(path in self._through for _, path in list_segments(directory)):
            return False
        origin = take_lock(directory, 0)
        if origin is None:
            return False
        try:
            segments = [item for item in list_segments(directory) if item[1] not in self._through]
            if not segments or _is_written(list_segments(directory)[-1][1]):
                return False
            for (_, path), after in zip(segments[:1], [*segments[1:2], None], strict=False):
                self._ship_segment(path, after and after[1], None)
        finally:
            os.close(origin)
        return True

    def _ship_own(self, recorder: Recorder) -> None:
        """Ships the recorder's log up to where it is known to be on disk."""
        synced = recorder.synced()
        segments = [
            (sequence, path)
            for sequence, path in list_segments(recorder.directory)
            if sequence <= synced.place.sequence
        ]
        for (sequence, path), after in zip_longest(segments, segments[1:]):
            if sequence == synced.place.sequence and path.stat().st_size < synced.place.byte_offset:
                return  # somebody has shortened it: the recorder will notice
            self._ship_segment(path, after and after[1], synced)

    def _ship_segment(self, path: Path, after: Path | None, own: Synced | None) -> None:
        """Ships what is new in a segment, and deletes it where it is closed, whole and shipped.

        `own`: it is of the recorder's log, which is on disk as far as that.
        """
        try:
            header, start = read_header(path)
        except DamagedSegmentError as error:
            self._keep(path, str(error))
            self._through.add(path)
            return
        end, is_live = believed_bytes(header, after), False
        if own is not None and own.place.sequence == header.sequence:
            end, is_live = own.place.byte_offset, not own.closed
        place = self._done.get(path) or self._resume(path, header, start, end)
        damage = self._ship_frames(path, header, place, end)
        if own is not None and self._recorder is not None:
            self._report_back(self._recorder, path, header)
        if damage is not None:
            if end is None and damage.byte_offset >= self._done[path].byte_offset:
                # Nothing holds behind it: a write that a crash tore, acknowledged to nobody.
                _log.warning("audit_torn_tail_cut", segment=path.name, what=damage.what)
            else:
                self._keep(path, f"record {damage.position}: {damage.what}")
        if is_live:
            return
        if self._is_kept(path):
            self._through.add(path)
        else:
            path.unlink(missing_ok=True)
            del self._done[path]

    def _ship_frames(
        self, path: Path, header: Header, place: Place, end: int | None
    ) -> Damage | None:
        """Commits the frames from `place` on, in runs without damage between; the first met."""
        run: list[Frame] = []
        size = 0
        damage: Damage | None = None
        self._done[path] = place
        for item in read_frames(path, place, end):
            if isinstance(item, Damage):
                damage = damage or item
                self._commit(path, header, run)
                run, size = [], 0
                continue
            if item.position % YIELD_FRAMES == 0:
                # Those who answer requests would wait for the interpreter, 5 ms at a time.
                time.sleep(YIELD_SECONDS)
            if len(run) == RUN_FRAMES_MAX or size + len(item.payload) > RUN_BYTES_MAX:
                self._commit(path, header, run)
                run, size = [], 0
            run.append(item)
            size += len(item.payload)
        self._commit(path, header, run)
        return damage

    def _commit(self, path: Path, header: Header, frames: Sequence[Frame]) -> None:
        if not frames:
            return
        refusals = self._destination.commit(header.log, frames)
        for refusal in refusals:
            self._keep(path, f"record {refusal.position}: {refusal.what}")
        self._done[path] = frames[-1].after
        refused = {refusal.position for refusal in refusals}
        self._shipped += sum(
            frame.kind == KIND_RECORD and frame.position not in refused for frame in frames
        )

    def _report_back(self, recorder: Recorder, path: Path, header: Header) -> None:
        """Tells the recorder how far its log is shipped, and which of it others have deleted."""
        if not segment_path(path.parent, header.sequence - 1).exists():
            recorder.note_gone(header.log_id, header.position)
        recorder.note_shipped(header.log_id, self._done[path].position)

    def _resume(self, path: Path, header: Header, start: Place, end: int | None) -> Place:
        """Where to go on in a file that this process has not read yet: where the destination is,
        if the chain leads there, or else at the start."""
        known = self._destination.place(header.log)
        if known is None or known.sequence < header.sequence:
            return start
        if known.sequence > header.sequence:
            newest, _ = list_segments(path.parent)[-1]
            if known.sequence <= newest or self._is_kept(path):
                return start
        elif known == start or any(
            isinstance(item, Frame) and item.after == known
            for item in read_frames(path, start, end)
        ):
            return known
        # A directory put back from a backup: everything goes in again, once, by its id.
        self._damages += 1
        _log.error("audit_log_behind_destination", origin=header.origin, segment=path.name)
        return start

    def _keep(self, path: Path, what: str) -> None:
        """Sets a segment aside, for people: it is never deleted. They delete the note with it."""
        if not self._is_kept(path):
            # Where it cannot be written, this process remembers.
            with contextlib.suppress(OSError):
                _note(path).write_text(what + "\n")
            self._say_kept(path, what)

    def _is_kept(self, path: Path) -> bool:
        if path not in self._kept and _note(path).is_file():
            self._say_kept(path, "set aside before")
        return path in self._kept

    def _say_kept(self, path: Path, what: str) -> None:
        self._kept.add(path)
        self._damages += 1
        _log.error("audit_segment_damaged", segment=str(path), what=what)


def _is_written(path: Path) -> bool:
    """Whether a living process writes this segment: then its lock file was deleted, or it would
    not have been found free."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return not lock(descriptor)
    finally:
        os.close(descriptor)


def _note(path: Path) -> Path:
    """Where stands why a segment is kept."""
    return path.with_suffix(".kept")
