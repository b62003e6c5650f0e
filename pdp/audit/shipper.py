"""Ships segments to their destination, and deletes them once they are stored completely.

A destination is idempotent: a record that is shipped again (after a crash, by two shippers at once,
from a restored directory) is stored once. The place that it remembers only saves work. Only a pass
that saw all of a segment committed deletes the segment.
"""

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final, Protocol

import structlog

from pdp.audit.coverage import Period
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
    list_segments,
    read_frames,
    read_header,
    segment_path,
    valid_bytes,
)
from pdp.audit.writer import Synced
from pdp.errors import PdpError

RUN_FRAMES_MAX: Final = 1000
RUN_BYTES_MAX: Final = 1 << 20
COLLECT_SECONDS: Final = 0.1
YIELD_FRAMES: Final = 16
YIELD_SECONDS: Final = 0.0002
IDLE_SECONDS: Final = 2.0
BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 2.0
STOP_SECONDS_MAX: Final = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ShipperCounts:
    """Counters for metrics; `failing` is a state."""

    shipped: int
    """Records that are stored at the destination."""
    failures: int
    """Passes that failed because of the destination or a file."""
    failing: bool
    """Whether the last pass failed, so that records wait in segments."""


class SegmentNotary(Protocol):
    """Keeps a tree over the segments."""

    def may_delete(self, segment: Path, log_id: str, position: int) -> bool:
        """Returns whether the tree covers a shipped segment, whose end has this position."""

    def note_lost_rows(self, segment: Path, log_id: str) -> None:
        """Notes that the destination has lost frames of a log from before this segment."""


class Shipper:
    """Ships the recorder's own log as it grows, and the logs below `directory` that no process
    holds. Without a recorder: only the latter."""

    def __init__(
        self,
        directory: Path,
        destination: Destination,
        recorder: Recorder | None = None,
        *,
        notary: SegmentNotary | None = None,
        period: Period | None = None,
    ) -> None:
        """Creates the shipper; `start` starts it.

        Args:
            directory: The parent of the directories of all origins.
            destination: Where records go.
            recorder: Writes the log of this process.
            notary: Decides which shipped segments are deleted; None: all.
            period: States how far the recorder's log is shipped; None: it is not stated.
        """
        self._directory = directory
        self._destination = destination
        self._recorder = recorder
        self._notary = notary
        self._period = period
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._done: dict[Path, Place] = {}
        """How far each file is verified and committed."""
        self._damaged: set[Path] = set()
        """Segments that are set aside for inspection and never deleted."""
        self._finished: set[Path] = set()
        """Those of them that are shipped as far as possible."""
        self._shipped = self._failures = 0
        self._damages = 0
        """Segments that are damaged or partly refused, and logs behind their destination."""
        self._failing = False
        if recorder is not None:
            recorder.on_synced(self._wake.set)

    def start(self) -> None:
        """Starts to ship, even if the destination is not reachable."""
        self._thread = threading.Thread(target=self._run, name="audit-shipper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ships the rest, if the destination answers, and stops. Stop the recorder first."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS_MAX)
            self._thread = None

    def counts(self) -> ShipperCounts:
        """Returns the counters for metrics."""
        failing = self._failing or (self._thread is not None and not self._thread.is_alive())
        return ShipperCounts(self._shipped, self._failures, failing)

    def waiting_bytes(self) -> int:
        """Returns the bytes on disk that are not known to be stored. For metrics."""
        done, waiting = dict(self._done), 0
        for path in self._directory.glob("*/*.segment"):
            with contextlib.suppress(FileNotFoundError):  # it was just shipped
                place = done.get(path)
                waiting += path.stat().st_size - (place.byte_offset if place else 0)
        return waiting

    def ship(self) -> None:
        """Ships everything that is there now.

        Raises:
            PdpError: The destination failed; committed frames stay committed.
            OSError: A file cannot be read.
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
                # Leaves the log unlocked for a moment, for a process that starts now.
                if self._stopping.wait(COLLECT_SECONDS):
                    return

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = BACKOFF_SECONDS_MIN
        self._note(None)
        while True:
            last = self._stopping.is_set()
            self._wake.clear()
            settled_at = None if self._recorder is None else self._recorder.settled_at()
            try:
                self.ship()
            except (PdpError, OSError) as error:
                self._note(None, ended=last)
                self._failures += 1
                if not self._failing:
                    _log.warning("audit_shipping_fails", error=type(error).__name__)
                self._failing = True
                self._stopping.wait(backoff)
                backoff = min(2 * backoff, BACKOFF_SECONDS_MAX)
            else:
                self._note(settled_at, ended=last)
                self._failing, backoff = False, BACKOFF_SECONDS_MIN
                if not last:
                    # One transaction for each sync would cost more than the syncs.
                    self._stopping.wait(COLLECT_SECONDS)
                    self._wake.wait(IDLE_SECONDS)
            if last:
                return

    def _note(self, settled_at: float | None, *, ended: bool = False) -> None:
        """Notes for the coverage that SQL holds the records queued before `settled_at`, and the
        losses."""
        if self._period is not None and self._recorder is not None:
            counts = self._recorder.counts()
            losses = counts.dropped + counts.failures + self._damages
            self._period.note(settled_at, losses, ended=ended)

    # --- one log ---------------------------------------------------------------------------------

    def _adopt(self, directory: Path) -> bool:
        """Ships segments of a log that no process holds, up to the first that it can delete; False:
        none."""
        if all(path in self._finished for _, path in list_segments(directory)):
            return False
        origin = take_lock(directory, 0)
        if origin is None:
            return False
        try:
            segments = [item for item in list_segments(directory) if item[1] not in self._finished]
            if not segments or _is_written(list_segments(directory)[-1][1]):
                return False
            # Past segments that must wait for a checkpoint, to the first that is done with.
            return any(
                self._ship_segment(path, after and after[1], None)
                for (_, path), after in zip_longest(segments, segments[1:])
            )
        finally:
            os.close(origin)

    def _ship_own(self, recorder: Recorder) -> None:
        """Ships the synced part of the recorder's log."""
        synced = recorder.synced()
        segments = [
            (sequence, path)
            for sequence, path in list_segments(recorder.directory)
            if sequence <= synced.place.sequence
        ]
        for (sequence, path), after in zip_longest(segments, segments[1:]):
            if sequence == synced.place.sequence and path.stat().st_size < synced.place.byte_offset:
                return  # another process truncated it: the recorder will notice
            self._ship_segment(path, after and after[1], synced)

    def _ship_segment(self, path: Path, after: Path | None, own: Synced | None) -> bool:
        """Ships the rest of a segment, and deletes it if it is closed, intact and shipped.

        Returns whether nothing is left to do for it.

        Args:
            path: The segment.
            after: The next segment of the directory, if any.
            own: How far the recorder's log is synced; None: the log of another process.
        """
        try:
            header, start = read_header(path)
        except DamagedSegmentError as error:
            self._set_aside(path, str(error))
            self._finished.add(path)
            return True
        end, is_live = valid_bytes(header, after), False
        if own is not None and own.place.sequence == header.sequence:
            end, is_live = own.place.byte_offset, not own.closed
        place = self._done.get(path) or self._resume(path, header, start, end)
        damage = self._ship_frames(path, header, place, end)
        if own is not None and self._recorder is not None:
            self._report_back(self._recorder, path, header)
        if damage is not None:
            if end is None and damage.byte_offset >= self._done[path].byte_offset:
                # Nothing valid follows: a torn write of a crash, which was never acknowledged.
                _log.warning("audit_torn_tail_cut", segment=path.name, what=damage.what)
            else:
                self._set_aside(path, f"record {damage.position}: {damage.what}")
        if is_live:
            return False
        if self._is_set_aside(path):
            self._finished.add(path)
            return True
        notary, position = self._notary, self._done[path].position
        if notary is not None and not notary.may_delete(path, header.log_id, position):
            return False
        path.unlink(missing_ok=True)
        del self._done[path]
        return True

    def _ship_frames(
        self, path: Path, header: Header, place: Place, end: int | None
    ) -> Damage | None:
        """Commits the frames from `place` on, in undamaged runs; returns the first damage."""
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
                # Otherwise request threads wait for the interpreter lock, 5 ms at a time.
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
            self._set_aside(path, f"record {refusal.position}: {refusal.what}")
        self._done[path] = frames[-1].after
        refused = {refusal.position for refusal in refusals}
        self._shipped += sum(
            frame.kind == KIND_RECORD and frame.position not in refused for frame in frames
        )

    def _report_back(self, recorder: Recorder, path: Path, header: Header) -> None:
        """Informs the recorder how far its log is shipped, and which segments are missing."""
        if not segment_path(path.parent, header.sequence - 1).exists():
            recorder.mark_deleted(header.log_id, header.position)
        recorder.mark_shipped(header.log_id, self._done[path].position)

    def _resume(self, path: Path, header: Header, start: Place, end: int | None) -> Place:
        """Returns where to continue in a file that this process has not read yet: at the place of
        the destination, if the chain leads there, otherwise at the start."""
        known = self._destination.place(header.log)
        if known is None or known.sequence < header.sequence:
            shipped = 0 if known is None else known.position
            if shipped < header.position and path == list_segments(path.parent)[0][1]:
                _log.error("audit_destination_behind", origin=header.origin, segment=path.name)
                if self._notary is not None:
                    self._notary.note_lost_rows(path, header.log_id)
            return start
        if known.sequence > header.sequence:
            newest, _ = list_segments(path.parent)[-1]
            if known.sequence <= newest or self._is_set_aside(path):
                return start
        elif known == start or any(
            isinstance(item, Frame) and item.after == known
            for item in read_frames(path, start, end)
        ):
            return known
        # A directory that was restored from a backup: ship everything again.
        self._damages += 1
        _log.error("audit_log_behind_destination", origin=header.origin, segment=path.name)
        return start

    def _set_aside(self, path: Path, what: str) -> None:
        """Marks a segment, by a note, as never to be deleted. An operator deletes both."""
        if not self._is_set_aside(path):
            # If the note cannot be written, this process remembers.
            with contextlib.suppress(OSError):
                _note(path).write_text(what + "\n")
            self._log_set_aside(path, what)

    def _is_set_aside(self, path: Path) -> bool:
        if path not in self._damaged and _note(path).is_file():
            self._log_set_aside(path, "set aside before")
        return path in self._damaged

    def _log_set_aside(self, path: Path, what: str) -> None:
        self._damaged.add(path)
        self._damages += 1
        _log.error("audit_segment_damaged", segment=str(path), what=what)


def _is_written(path: Path) -> bool:
    """Returns whether a running process writes this segment although the lock file is free: the
    lock file was deleted."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return not lock(descriptor)
    finally:
        os.close(descriptor)


def _note(path: Path) -> Path:
    """Returns the path of the note that states why a segment is set aside."""
    return path.with_suffix(".kept")
