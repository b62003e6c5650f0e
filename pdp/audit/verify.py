"""Checks segments offline: does the chain hold, and if not, where does it break first?"""

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
    believed_bytes,
    list_segments,
    read_frames,
    read_header,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not hold."""

    path: Path
    position: int | None
    """Of the first bad record of the segment, counted over its log; None: the header."""
    byte_offset: int
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. A process that is writing at the time, or that was killed and not started
    again, may show as a last frame that is cut off."""

    segments: int
    records: int
    """Records whose place in the chain holds."""
    dropped: int
    """Records that the log itself says were dropped."""
    problems: tuple[Problem, ...]
    """At most one for each segment: its first; by path."""
    headers: Mapping[tuple[Log, int], bytes]
    """(log, number of a segment) -> digest of its header: what leads there must end in it."""

    @property
    def whole(self) -> bool:
        return not self.problems


def verify_segments(directory: Path, shipped: Mapping[Log, Place] | None = None) -> Report:
    """Reads every segment in `directory` and in the directories of origins below it.

    `shipped` says how far SQL has each log: without it, records deleted from the end of the newest
    segment do not show. Needs memory for one record. Raises OSError.
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
        end = believed_bytes(header, after)
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
    """Whether the segment has the place up to which it was shipped."""
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
