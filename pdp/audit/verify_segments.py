"""Verifies the hash chain of segments offline, and finds where it breaks first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from pdp.audit.records import MalformedRecordError, decode
from pdp.audit.rows import gap_row
from pdp.audit.segments import (
    KIND_RECORD,
    Damage,
    DamagedSegmentError,
    Frame,
    Header,
    Log,
    Place,
    list_segments,
    read_frames,
    read_header,
    valid_bytes,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """A violation of the chain."""

    path: Path
    position: int | None
    """Position in its log of the first bad record of the segment; None: the header is bad."""
    byte_offset: int
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """The result. If a process is writing, or was killed and not restarted, the last frame may be
    truncated."""

    segments: int
    records: int
    """Records whose digest is correct."""
    dropped: int
    """Records that the log states as dropped."""
    problems: tuple[Problem, ...]
    """The first problem of each segment, by path."""
    headers: Mapping[tuple[Log, int], bytes]
    """(log, number of a segment) -> digest of its header, which the rows before must lead to."""

    @property
    def whole(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def verify_segments(directory: Path, shipped: Mapping[Log, Place] | None = None) -> Report:
    """Verifies every segment in `directory` and in the directories of origins below it.

    Needs memory for one record.

    Args:
        directory: The audit directory.
        shipped: How far SQL has each log. Without it, records that were deleted from the end of the
            newest segment are not detected.

    Raises:
        OSError: A file cannot be read.
    """
    totals = [0, 0, 0]
    problems: list[Problem] = []
    headers: dict[tuple[Log, int], bytes] = {}
    for place in (directory, *sorted(p for p in directory.iterdir() if p.is_dir())):
        problems += _verify_origin(place, totals, headers, shipped or {})
    return Report(totals[0], totals[1], totals[2], tuple(problems), headers)


def _verify_origin(
    directory: Path,
    totals: list[int],
    headers: dict[tuple[Log, int], bytes],
    shipped: Mapping[Log, Place],
) -> Iterator[Problem]:
    paths = [path for _, path in list_segments(directory)]
    previous: tuple[Header, Place] | None = None
    for path, after in zip_longest(paths, paths[1:]):
        totals[0] += 1
        try:
            header, start = read_header(path)
        except DamagedSegmentError as error:
            previous = None
            yield Problem(path, None, 0, str(error))
            continue
        headers[header.log, header.sequence] = start.digest
        problem = _against_previous(path, header, previous)
        end = valid_bytes(header, after)
        place, damage = _verify_frames(path, header, start, end, totals)
        if problem is None and damage is None:
            problem = _against_shipped(path, start, end, shipped.get(header.log))
        if problem is None and damage is not None:
            problem = Problem(path, damage.position, damage.byte_offset, damage.what)
        if problem is not None:
            yield problem
        previous = header, place


def _verify_frames(
    path: Path, header: Header, place: Place, end: int | None, totals: list[int]
) -> tuple[Place, Damage | None]:
    damage: Damage | None = None
    for item in read_frames(path, place, end):
        if isinstance(item, Damage):
            damage = damage or item
            continue
        before, place = place, item.after
        try:
            if item.kind == KIND_RECORD:
                decode(item.payload)
                totals[1] += 1
            else:
                totals[2] += gap_row(item, header.log)["dropped"]
        except MalformedRecordError as error:
            damage = damage or Damage(item.position, before.byte_offset, str(error))
    return place, damage


def _against_previous(
    path: Path, header: Header, previous: tuple[Header, Place] | None
) -> Problem | None:
    if path.name != f"{header.sequence:010d}.segment":
        return Problem(path, None, 0, "the file bears another segment's number")
    if previous is None or previous[0].log_id != header.log_id:
        return None
    before, place = previous
    if before.sequence + 1 != header.sequence:
        return Problem(path, None, 0, f"segment {before.sequence + 1} is missing")
    if (place.byte_offset, place.digest, place.position) != (
        header.previous_bytes,
        header.previous_digest,
        header.position,
    ):
        return Problem(path, None, 0, "the segment does not continue the one before it")
    return None


def _against_shipped(
    path: Path, start: Place, end: int | None, shipped: Place | None
) -> Problem | None:
    """Checks that the segment contains the shipped position."""
    if shipped is None or shipped.sequence != start.sequence or shipped == start:
        return None
    for item in read_frames(path, start, end):
        if isinstance(item, Frame) and item.after.position == shipped.position:
            if item.after == shipped:
                return None
            what = "the record is another one than was shipped"
            return Problem(path, item.position, item.before.byte_offset, what)
    what = f"the segment ends before record {shipped.position}, which was shipped of it"
    return Problem(path, shipped.position - 1, path.stat().st_size, what)
