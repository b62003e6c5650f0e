"""Writes the log of one origin: its directory, its lock, and the current segment.

A batch counts as written once it is synced and the segment still has its name and the right size.
Otherwise another process has moved, deleted or changed the file (a log rotator, a cleaner of
temporary files), and no reader would find the batch:

- A file that was moved, deleted or replaced is still open here. It is restored under its name, and
  the log continues in it: nothing is lost.
- A file that was truncated has lost bytes for good. It is cut to whole frames, and a new log begins
  after it. A gap in that log states how many lost frames had not been shipped. (The old log cannot
  continue: shipped frames have its next positions.)
- Bytes that others appended to a file are cut off.

A failed write or sync ends its segment. It is never retried: a second fsync may succeed although
the pages are lost.
"""

import errno
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from pdp.audit.locks import LOCK_NAME, is_named, lock, take_lock
from pdp.audit.segments import (
    KIND_GAP,
    LENGTH,
    NO_DIGEST,
    DamagedSegmentError,
    Frame,
    Header,
    Place,
    create_segment,
    find_end,
    gap_payload,
    list_segments,
    make_directory,
    new_log_id,
    put_file,
    read_frames,
    read_header,
    segment_path,
    write_all,
)
from pdp.clock import Clock
from pdp.errors import AuditUnavailable

LOCK_SECONDS_MAX: Final = 5.0
_COPY_BYTES: Final = 1 << 20
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))

_log = structlog.get_logger(__name__)


class Synced(NamedTuple):
    """How far a log is synced to disk."""

    place: Place
    """The end of the log."""
    closed: bool
    """Whether its segment is complete."""


class LostSegmentError(OSError):
    """The current segment was moved, deleted or changed."""


class LogWriter:
    """The log of one origin. For one thread; others may read `synced` and `log_id`."""

    def __init__(
        self,
        directory: Path,
        origin: str,
        clock: Clock,
        covered: Callable[[str], int] = lambda _: 0,
    ) -> None:
        self.directory: Final = directory
        self._origin = origin
        self._clock = clock
        self._covered = covered
        self.log_id = ""
        self.synced = Synced(Place(0, 0, 0, NO_DIGEST), closed=True)
        self.losses = 0
        """Number of lost segments and locks."""
        self._lock: int | None = None
        self._descriptor: int | None = None
        self._path = directory
        self._identity = (0, 0)
        """Device and inode of the segment at `_path`."""
        self._lost = False
        """Whether the open segment no longer has its name."""
        self._begins_log = False
        """Whether the next segment begins a new log."""
        self._first_position = 0
        """Position of the first frame in the segment."""
        self._shipped_position = 0
        self._deleted = self._missing = 0
        """Lost frames, as noticed by the shipper's thread and by this one."""
        self._counted = 0
        """How many of them are counted by gaps."""

    @property
    def is_open(self) -> bool:
        """Whether there is a segment to write to."""
        return self._descriptor is not None and not self._lost

    def open(self) -> None:
        """Locks the origin, recovers the log of the last process, and begins a new segment.

        On a full disk there is no segment yet: shipping frees space.

        Raises:
            OSError: The directory cannot be used.
            AuditUnavailable: Another process has the origin.
        """
        make_directory(self.directory)
        self._lock = take_lock(self.directory, LOCK_SECONDS_MAX)
        if self._lock is None:
            raise self._taken()
        try:
            self._recover()
            try:
                self._open_next()
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                _log.error("audit_segment_not_created", origin=self._origin, errno=error.errno)
        except (OSError, AuditUnavailable):
            self._release_lock()
            raise

    def append(self, bodies: Sequence[bytes], dropped: int = 0) -> None:
        """Writes and syncs frames.

        Args:
            bodies: Kind and payload of each frame.
            dropped: Number of records for a gap before them; 0: no gap.

        Raises:
            OSError: None of the frames is part of the log.
        """
        try:
            self._append(bodies, dropped)
        except LostSegmentError as lost:
            log_id = self.log_id
            self._replace(lost)
            if self.log_id != log_id:
                # Counts among the frames may refer to lost records.
                raise
            self._append(bodies, dropped)

    def check_files(self) -> None:
        """Ensures that there is a segment, that it has its name, and that this process holds the
        lock. Raises OSError."""
        self._require_segment()
        try:
            self._require_named(self.synced.place.byte_offset)
        except LostSegmentError as lost:
            self._replace(lost)
        self._keep_lock()
        if self._deleted + self._missing > self._counted:
            self._append((), 0)

    def rotate(self) -> None:
        """Ends the segment and begins the next. Raises OSError: there is no next one."""
        self._end_segment()
        self._open_next()

    def close(self) -> None:
        """Closes the segment and unlocks the origin."""
        if self._descriptor is not None:
            try:
                self.check_files()
            except OSError as error:
                _log.error("audit_segment_not_restored", origin=self._origin, errno=error.errno)
            os.close(self._descriptor)
            self._descriptor = None
        self._release_lock()

    def mark_shipped(self, log_id: str, position: int) -> None:
        """Records that all frames of a log before `position` are shipped."""
        if log_id == self.log_id:
            self._shipped_position = max(position, self._shipped_position)

    def mark_deleted(self, log_id: str, position: int) -> None:
        """Records that a log's segments before `position` are deleted, shipped or not. For the
        thread that calls `mark_shipped`."""
        if log_id == self.log_id:
            self._deleted += self._count_unshipped(position)

    # --- frames ----------------------------------------------------------------------------------

    def _append(self, bodies: Sequence[bytes], dropped: int) -> None:
        descriptor = self._require_segment()
        lost = self._deleted + self._missing
        if dropped or lost > self._counted:
            gap = gap_payload(dropped + lost - self._counted, float(self._clock()))
            bodies = [KIND_GAP + gap, *bodies]
        end = self.synced.place
        digest, pack = end.digest, LENGTH.pack
        parts: list[bytes] = []
        for body in bodies:
            digest = sha256(digest + body).digest()
            parts += (pack(len(body)), digest, body)
        content = b"".join(parts)
        after = Place(
            end.sequence, end.byte_offset + len(content), end.position + len(bodies), digest
        )
        try:
            write_all(descriptor, content)
            os.fdatasync(descriptor)
            self._require_named(after.byte_offset)
        except LostSegmentError:
            raise
        except OSError:
            if self._is_named():
                self._end_segment()
            else:
                self._lost = True
            raise
        self.synced = Synced(after, closed=False)
        self._counted = lost

    # --- segments --------------------------------------------------------------------------------

    def _require_segment(self) -> int:
        if self._lost:
            self._repair()
        if self._descriptor is None:
            self._open_next()
        assert self._descriptor is not None  # noqa: S101  # narrows the type
        return self._descriptor

    def _open_next(self) -> None:
        make_directory(self.directory)
        self._keep_lock()
        end = self.synced.place
        if self._begins_log:
            end = Place(end.sequence, 0, 0, NO_DIGEST)
        header = Header(
            origin=self._origin,
            log_id=self.log_id,
            sequence=end.sequence + 1,
            position=end.position,
            previous_digest=end.digest,
            previous_bytes=end.byte_offset,
        )
        descriptor, place = create_segment(self.directory, header)
        self._begins_log = False
        self._first_position = header.position
        self._path = segment_path(self.directory, header.sequence)
        self._use(descriptor)
        self.synced = Synced(place, closed=False)

    def _use(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        self._identity = found.st_dev, found.st_ino
        self._descriptor = descriptor

    def _end_segment(self) -> None:
        """Closes the segment. Bytes after the end of the log are cut off if possible; in any case,
        the next header states where it ended."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        place = self.synced.place
        try:
            os.ftruncate(descriptor, place.byte_offset)
        except OSError as error:
            _log.warning("audit_tail_not_cut", origin=self._origin, errno=error.errno)
        finally:
            os.close(descriptor)
            self.synced = Synced(place, closed=True)

    def _recover(self) -> None:
        """Finds the end of the log. Bytes after it were never acknowledged."""
        for leftover in self.directory.glob("*.new"):
            leftover.unlink()
        self.log_id = new_log_id()
        segments = list_segments(self.directory)
        if not segments:
            return
        sequence, path = segments[-1]
        # It may be in memory only. Sync it before a header refers to it.
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not lock(descriptor):
                raise self._taken()
            try:
                header, end = find_end(path)
            except DamagedSegmentError as error:
                # It stays unchanged, for inspection. A new log begins after it.
                _log.error("audit_segment_damaged", segment=path.name, what=str(error))
                self.synced = Synced(Place(sequence, 0, 0, NO_DIGEST), closed=True)
                return
            torn = os.fstat(descriptor).st_size - end.byte_offset
            if torn:
                _log.warning("audit_torn_tail_cut", segment=path.name, bytes=torn)
                os.ftruncate(descriptor, end.byte_offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if self._covered(header.log_id) > end.position:
            # Restored from a backup, or cut off. Continued, the log would have two histories.
            _log.error("audit_log_behind_checkpoint", segment=path.name, position=end.position)
            self.synced = Synced(Place(sequence, 0, 0, NO_DIGEST), closed=True)
            return
        self.log_id, self.synced = header.log_id, Synced(end, closed=True)
        self._shipped_position = _first_position(segments[0][1], header.log_id, end.position)

    # --- interference of other processes ---------------------------------------------------------

    def _require_named(self, size: int) -> None:
        """Raises LostSegmentError if the segment has lost its name or does not have this size."""
        try:
            found = self._path.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            raise LostSegmentError("it was moved or deleted") from None
        if (found.st_dev, found.st_ino) != self._identity:
            raise LostSegmentError("another file has its name")
        if found.st_size != size:
            shorter = found.st_size < size
            raise LostSegmentError("it was shortened" if shorter else "others wrote into it")

    def _replace(self, lost: LostSegmentError) -> None:
        self.losses += 1
        _log.error("audit_segment_lost", segment=str(self._path), what=str(lost))
        self._lost = True
        self._repair()

    def _repair(self) -> None:
        """Recovers from the loss of the segment. Raises OSError: not yet, try again later."""
        assert self._descriptor is not None  # noqa: S101  # narrows the type
        make_directory(self.directory)
        self._keep_lock()
        end = self.synced.place
        intact = self._intact_until(self._descriptor)
        if intact != end:
            self._begin_log(intact)
            return
        if is_named(self._descriptor, self._path):
            os.ftruncate(self._descriptor, end.byte_offset)
        else:
            self._put_back()
        self._lost = False

    def _put_back(self) -> None:
        """Restores the segment under its name from the file that is still open."""
        path, lost, size = self._path, self._descriptor, self.synced.place.byte_offset
        assert lost is not None  # noqa: S101  # narrows the type
        self._use(put_file(path, lambda copy: _copy(lost, copy, size)))
        os.close(lost)
        if list_segments(self.directory)[0][1] == path:
            # The whole directory was deleted, perhaps with unshipped segments.
            self._missing += self._count_unshipped(self._first_position)
        _log.warning("audit_segment_restored", segment=str(path), bytes=size)

    def _intact_until(self, descriptor: int) -> Place | None:
        """Returns how far the open segment is intact; None: even its header is damaged."""
        path = Path(f"/dev/fd/{descriptor}")  # works without a name
        try:
            _, place = read_header(path)
        except DamagedSegmentError:
            return None
        for item in read_frames(path, place):
            if not isinstance(item, Frame) or place == self.synced.place:
                break
            place = item.after
        return place

    def _begin_log(self, intact: Place | None) -> None:
        """Begins a new log after a segment that is intact up to `intact` only."""
        assert self._descriptor is not None  # noqa: S101  # narrows the type
        end = self.synced.place
        self.mark_shipped(self.log_id, self._first_position)
        if self._is_named() and intact is not None and intact.position > self._shipped_position:
            os.ftruncate(self._descriptor, intact.byte_offset)
            os.fsync(self._descriptor)
            self.synced = Synced(intact, closed=True)
            self.mark_shipped(self.log_id, intact.position)  # soon
        else:
            # Everything that is left in it is shipped.
            if self._is_named():
                self._path.unlink()
            self.synced = Synced(Place(end.sequence, 0, 0, NO_DIGEST), closed=True)
        self._missing += self._count_unshipped(end.position)
        os.close(self._descriptor)
        self._descriptor, self._lost = None, False
        self.log_id, self._begins_log, self._shipped_position = new_log_id(), True, 0
        self._open_next()

    def _count_unshipped(self, position: int) -> int:
        """Counts the frames before a position that are neither on disk nor shipped."""
        frames = position - self._shipped_position
        if frames <= 0:
            return 0
        self._shipped_position = position
        self.losses += 1
        _log.error("audit_frames_lost", origin=self._origin, frames=frames)
        return frames

    def _is_named(self) -> bool:
        """Returns whether the segment has its name; True if that is unknown."""
        try:
            return self._descriptor is not None and is_named(self._descriptor, self._path)
        except OSError:
            return True

    # --- the lock --------------------------------------------------------------------------------

    def _keep_lock(self) -> None:
        """Locks the origin again if its lock file was deleted. Raises OSError: another process
        has locked it."""
        path = self.directory / LOCK_NAME
        if self._lock is not None and is_named(self._lock, path):
            return
        fresh = take_lock(self.directory, 0)
        if fresh is None:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self._release_lock()
        self._lock = fresh
        self.losses += 1
        _log.error("audit_lock_replaced", path=str(path))

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _taken(self) -> AuditUnavailable:
        return AuditUnavailable(
            f"another process records as {self._origin!r} in {self.directory.parent}"
        )


def _copy(source: int, target: int, size: int) -> None:
    done = 0
    while done < size:
        part = os.pread(source, min(_COPY_BYTES, size - done), done)
        if not part:
            raise OSError(errno.EIO, "the lost segment is not as long as it was")
        write_all(target, part)
        done += len(part)


def _first_position(oldest: Path, log_id: str, end: int) -> int:
    """Returns the position of the oldest frame on disk: those before it are shipped."""
    try:
        header, _ = read_header(oldest)
    except DamagedSegmentError:
        return end
    return header.position if header.log_id == log_id else 0
