"""Writes one origin's log: its directory, its lock, and the segment that is being written.

A batch counts as written once it is synced and the segment is still the file of its name, exactly
as long as it must be. Otherwise somebody has moved, deleted or changed the file meanwhile (a log
rotator, a cleaner of temporary files), and nobody would find the batch again:

- A file that was moved, deleted or replaced is still open here. Its bytes are put back under its
  name, and the log goes on in it: nothing is lost.
- A file that was shortened has lost bytes that are nowhere else. It is cut to whole frames, and a
  new log begins behind it. A gap in that log says how many frames were lost that had not been
  shipped. (The old log cannot go on: its next positions are taken by what was shipped.)
- What was added to a file by others is cut off.

A write or sync that failed ends its segment. It is never repeated and then believed: a second fsync
may succeed though the pages are lost.
"""

import errno
import json
import os
from collections.abc import Sequence
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
    """How far a log is known to be on disk."""

    place: Place
    """Nothing behind it is part of the log."""
    closed: bool
    """Whether nothing more will be written into its segment."""


class LostSegmentError(OSError):
    """The segment is no longer what was written."""


class LogWriter:
    """The log of one origin, for one thread. `synced` and `log_id` may be read by others."""

    def __init__(self, directory: Path, origin: str, clock: Clock) -> None:
        self.directory: Final = directory
        self._origin = origin
        self._clock = clock
        self.log_id = ""
        self.synced = Synced(Place(0, 0, 0, NO_DIGEST), closed=True)
        self.losses = 0
        """How often a segment or the lock was lost."""
        self._lock: int | None = None
        self._descriptor: int | None = None
        self._path = directory
        self._identity = (0, 0)
        """Device and inode of the segment at `_path`."""
        self._lost = False
        """Whether the open segment is no longer the file of its name."""
        self._begins_log = False
        """Whether the next segment begins a log of its own."""
        self._first_position = 0
        """Of the first frame in the segment."""
        self._shipped_position = 0
        self._gone = self._missing = 0
        """Frames that were lost, as noticed by the shipper's thread and by this one."""
        self._told = 0
        """How many of them gaps have counted."""

    @property
    def is_open(self) -> bool:
        """Whether there is a segment to write into."""
        return self._descriptor is not None and not self._lost

    def open(self) -> None:
        """Takes the origin, recovers what the last process left, and begins a new segment.

        Where the disk is full there is none yet: what is shipped makes room. Raises OSError, and
        AuditUnavailable: another process has the origin.
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
        """Writes frames, each given as its kind and payload, and syncs them.

        Args:
            bodies: The frames.
            dropped: How many records a gap before them has to count.

        Raises:
            OSError: None of them is part of the log.
        """
        try:
            self._append(bodies, dropped)
        except LostSegmentError as lost:
            log_id = self.log_id
            self._replace(lost)
            if self.log_id != log_id:
                # Counts among the frames may be of records that were lost.
                raise
            self._append(bodies, dropped)

    def watch(self) -> None:
        """Sees to it that there is a segment, that it is the file of its name, and that the lock
        is ours. Raises OSError."""
        self._require_segment()
        try:
            self._require_named(self.synced.place.byte_offset)
        except LostSegmentError as lost:
            self._replace(lost)
        self._keep_lock()
        if self._gone + self._missing > self._told:
            self._append((), 0)

    def rotate(self) -> None:
        """Ends the segment and begins the next. Raises OSError: there is none."""
        self._end_segment()
        self._open_next()

    def close(self) -> None:
        """Lets go of segment and origin."""
        if self._descriptor is not None:
            try:
                self.watch()
            except OSError as error:
                _log.error("audit_segment_not_restored", origin=self._origin, errno=error.errno)
            os.close(self._descriptor)
            self._descriptor = None
        self._release_lock()

    def note_shipped(self, log_id: str, position: int) -> None:
        """Notes that all frames of a log before `position` are at its destination."""
        if log_id == self.log_id:
            self._shipped_position = max(position, self._shipped_position)

    def note_gone(self, log_id: str, position: int) -> None:
        """Notes that a log's segments before `position` are gone, shipped or not. For the thread
        that calls `note_shipped`."""
        if log_id == self.log_id:
            self._gone += self._not_shipped_before(position)

    # --- frames ----------------------------------------------------------------------------------

    def _append(self, bodies: Sequence[bytes], dropped: int) -> None:
        descriptor = self._require_segment()
        lost = self._gone + self._missing
        if dropped or lost > self._told:
            bodies = [KIND_GAP + self._encode_gap(dropped + lost - self._told), *bodies]
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
        self._told = lost

    def _encode_gap(self, dropped: int) -> bytes:
        gap = {"dropped": dropped, "noticed_at": float(self._clock())}
        return json.dumps(gap, separators=(",", ":")).encode("ascii")

    # --- segments --------------------------------------------------------------------------------

    def _require_segment(self) -> int:
        if self._lost:
            self._heal()
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
        """Lets go of the segment. What stands in it behind the log's end is cut off if possible;
        the next header says where it ended in any case."""
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
        """Finds where the log ends. Bytes behind that were never acknowledged."""
        for leftover in self.directory.glob("*.new"):
            leftover.unlink()
        self.log_id = new_log_id()
        segments = list_segments(self.directory)
        if not segments:
            return
        sequence, path = segments[-1]
        # It may be in memory only: it must be on disk before a header says that it is there.
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not lock(descriptor):
                raise self._taken()
            try:
                header, end = find_end(path)
            except DamagedSegmentError as error:
                # Kept as it is, for people. A log of its own goes on behind it.
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
        self.log_id, self.synced = header.log_id, Synced(end, closed=True)
        self._shipped_position = _first_position(segments[0][1], header.log_id, end.position)

    # --- what others do to the files -------------------------------------------------------------

    def _require_named(self, size: int) -> None:
        """Raises LostSegmentError where the segment is not the file of its name and `size`."""
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
        self._heal()

    def _heal(self) -> None:
        """Goes on after the segment was lost. Raises OSError: not yet, it is to be tried again."""
        assert self._descriptor is not None  # noqa: S101  # narrows the type
        make_directory(self.directory)
        self._keep_lock()
        end = self.synced.place
        holds = self._what_holds(self._descriptor)
        if holds != end:
            self._begin_log(holds)
            return
        if is_named(self._descriptor, self._path):
            os.ftruncate(self._descriptor, end.byte_offset)
        else:
            self._put_back()
        self._lost = False

    def _put_back(self) -> None:
        """Writes the segment under its name again, out of the file that is still open."""
        path, lost, size = self._path, self._descriptor, self.synced.place.byte_offset
        assert lost is not None  # noqa: S101  # narrows the type
        self._use(put_file(path, lambda copy: _copy(lost, copy, size)))
        os.close(lost)
        if list_segments(self.directory)[0][1] == path:
            # The whole directory was deleted, perhaps with segments that were not shipped.
            self._missing += self._not_shipped_before(self._first_position)
        _log.warning("audit_segment_restored", segment=str(path), bytes=size)

    def _what_holds(self, descriptor: int) -> Place | None:
        """How far the open segment is what was written; None: not even its header is."""
        path = Path(f"/dev/fd/{descriptor}")  # whatever its name is by now, if it has one
        try:
            _, place = read_header(path)
        except DamagedSegmentError:
            return None
        for item in read_frames(path, place):
            if not isinstance(item, Frame) or place == self.synced.place:
                break
            place = item.after
        return place

    def _begin_log(self, holds: Place | None) -> None:
        """Begins a log of its own behind a segment that has lost what is behind `holds`."""
        assert self._descriptor is not None  # noqa: S101  # narrows the type
        end = self.synced.place
        self.note_shipped(self.log_id, self._first_position)
        if self._is_named() and holds is not None and holds.position > self._shipped_position:
            os.ftruncate(self._descriptor, holds.byte_offset)
            os.fsync(self._descriptor)
            self.synced = Synced(holds, closed=True)
            self.note_shipped(self.log_id, holds.position)  # soon
        else:
            # Nothing is left in it that was not shipped.
            if self._is_named():
                self._path.unlink()
            self.synced = Synced(Place(end.sequence, 0, 0, NO_DIGEST), closed=True)
        self._missing += self._not_shipped_before(end.position)
        os.close(self._descriptor)
        self._descriptor, self._lost = None, False
        self.log_id, self._begins_log, self._shipped_position = new_log_id(), True, 0
        self._open_next()

    def _not_shipped_before(self, position: int) -> int:
        """How many frames before a position are lost, where none of them is on disk any more."""
        frames = position - self._shipped_position
        if frames <= 0:
            return 0
        self._shipped_position = position
        self.losses += 1
        _log.error("audit_frames_lost", origin=self._origin, frames=frames)
        return frames

    def _is_named(self) -> bool:
        """Whether the segment is the file of its name, as far as that can be found out."""
        try:
            return self._descriptor is not None and is_named(self._descriptor, self._path)
        except OSError:
            return True

    # --- the lock --------------------------------------------------------------------------------

    def _keep_lock(self) -> None:
        """Takes the origin again if its lock file was deleted. Raises OSError: another process
        has it now."""
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
    """Of the first frame of a log that is still on disk: those before it are shipped."""
    try:
        header, _ = read_header(oldest)
    except DamagedSegmentError:
        return end
    return header.position if header.log_id == log_id else 0
