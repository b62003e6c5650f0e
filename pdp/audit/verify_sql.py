"""Verifies the decision log in SQL: each row is unchanged, and no row is missing.

The rows hold the digests of their frames. So the chain can be recomputed from the rows alone,
including the headers of segments, whose content follows from the frames before them. An attacker
who can write SQL can also recompute every digest. Only a comparison with a segment on disk, or with
the shipped position, detects that.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Engine

from pdp.administration_records import MalformedAdministrationRecordError, decode
from pdp.audit.administration_log import (
    KIND_ADMINISTRATION,
)
from pdp.audit.erasure import recorded_tombstones
from pdp.audit.records import MalformedRecordError
from pdp.audit.retention import Archived, archived_places
from pdp.audit.rows import record_row
from pdp.audit.segments import (
    KIND_RECORD,
    NO_DIGEST,
    Frame,
    Header,
    Log,
    Place,
    encode_header,
    next_frame,
)
from pdp.audit.stored_frames import KIND_COUNTS, StoredFrame, places_in, stored_frames
from pdp.audit.tables import (
    ERASED_GRANT,
)
from pdp.audit.tombstones import tombstone_of
from pdp.database.administration_table import row_of
from pdp.database.engine import begin_read, extended_timeouts

EMPTY_SEGMENTS_MAX: Final = 10_000
"""A row that skips more segments does not belong to the log."""
FIRST_SEGMENTS_MAX: Final = 64

_OF_COUNTS: Final = frozenset(("occurrences", "last_decided_at"))
"""Columns that counts change, which only a tree covers."""

HeaderDigests = Mapping[tuple[Log, int], bytes]
"""(log, number of a segment) -> digest of its header, of segments that are on disk."""


@dataclass(slots=True)
class SqlReport:
    """The result of a verification."""

    logs: int = 0
    records: int = 0
    gaps: int = 0
    problems: int = 0
    unlinked: int = 0
    """Rows whose digest could not be checked, because the row before them is missing."""
    counts: int = 0
    """Count frames. Their content is not stored, so it is not checked."""
    changes: int = 0
    """Administration records."""
    erased: int = 0
    """Records whose text was erased."""


def verify_sql(
    engine: Engine, on_problem: Callable[[str], None], on_disk: HeaderDigests
) -> SqlReport:
    """Verifies the whole decision log, log by log, in one snapshot. Needs memory for some rows.

    Args:
        engine: The database.
        on_problem: Called with a sentence for each problem, in order.
        on_disk: The headers of the segments on disk.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    report = SqlReport()

    def problem_in(log: Log, what: str) -> None:
        report.problems += 1
        on_problem(f"log {log.origin} {log.log_id}: {what}")

    with begin_read(engine) as connection, extended_timeouts(connection):
        places = places_in(connection)
        archived = archived_places(connection)
        tombstones = recorded_tombstones(connection)
        logs = groupby(stored_frames(connection), key=lambda frame: frame.log)
        for log, frames in logs:
            report.logs += 1
            walk = _Walk(
                log, report, problem_in, on_disk, archived=archived.get(log), tombstones=tombstones
            )
            for frame in frames:
                walk.take(frame)
            walk.end(places.pop(log, None))
        for log, place in places.items():
            here = place.position - (archived[log].end.position if log in archived else 0)
            if here > 0:
                problem_in(log, f"all {here} rows are missing")
    return report


class _Walk:
    """Verifies one log, from its first row to its last."""

    def __init__(
        self,
        log: Log,
        counts: SqlReport,
        on_problem: Callable[[Log, str], None],
        on_disk: HeaderDigests,
        *,
        archived: Archived | None,
        tombstones: Mapping[tuple[Log, int], set[str]],
    ) -> None:
        self._log = log
        self._tombstones = tombstones
        """Their digests, by place, as the administration records list them."""
        self._counts = counts
        self._on_problem = on_problem
        self._on_disk = on_disk
        self._archived = archived.end.position if archived is not None else 0
        self._end = archived.end if archived is not None else Place(0, 0, 0, NO_DIGEST)
        """After the previous row. Its `byte_offset` is meaningless: see `_offsets`."""
        self._offsets: list[int] = []
        """Possible ends of that row in its segment: one, if all bytes of the segment are known; a
        few, if the length of its header is unknown; none, if rows are missing."""

    def take(self, frame: StoredFrame) -> None:
        """Verifies the next row."""
        end = self._end
        if frame.position < self._archived and frame.kind == KIND_RECORD:
            # Archived, and kept because of a hold. A tree shows more.
            self._counts.records += 1
            self._counts.unlinked += 1
            self._check_erasure(frame)
            self._check_columns(frame)
            return
        if frame.kind == KIND_COUNTS and frame.position < end.position:
            # Runs of counts that were shipped again may overlap; the longest run comes last.
            if frame.position + frame.frames > end.position:
                self._counts.counts += frame.position + frame.frames - end.position
                self._offsets = []
                self._end = Place(frame.segment, 0, frame.position + frame.frames, frame.digest)
            return
        if frame.position < end.position:
            self._report(f"{frame.name} is one too many at its place: it was inserted or copied")
            return
        missing = frame.position - end.position
        if missing:
            self._report(
                f"{missing} row{'s' * (missing > 1)} before {frame.name} "
                f"{'are' if missing > 1 else 'is'} missing: deleted, or never shipped"
            )
        # Neither the length nor the digest of an erased text is known here: the next row continues
        # the stored digest, and a tree holds that of the text.
        is_erased = self._check_erasure(frame)
        if missing or frame.kind == KIND_COUNTS or is_erased or not self._link(frame):
            self._offsets = []
        if missing:
            self._counts.unlinked += 1
        self._check_columns(frame)
        self._end = Place(frame.segment, 0, frame.position + frame.frames, frame.digest)
        if frame.kind == KIND_COUNTS:
            self._counts.counts += frame.frames
            return
        if frame.kind == KIND_RECORD:
            self._counts.records += 1
        elif frame.kind == KIND_ADMINISTRATION:
            self._counts.changes += 1
        else:
            self._counts.gaps += 1

    def end(self, shipped: Place | None) -> None:
        """Checks that the last row was shipped last, and that segments on disk continue it."""
        end = self._end
        if shipped is None:
            self._report("is none that was shipped: its rows were inserted")
        elif shipped.position > end.position:
            missing = shipped.position - end.position
            self._report(f"the last {missing} row{'s' * (missing > 1)} of it are missing")
        elif shipped.position < end.position or shipped.digest != end.digest:
            self._report("does not end where shipping ended: its end was rewritten or added to")
        newest = max((number for log, number in self._on_disk if log == self._log), default=0)
        if len(self._offsets) == 1 and 0 < newest - end.sequence <= EMPTY_SEGMENTS_MAX:
            self._compare(list(self._headers(end, self._offsets[0], newest)))

    def _link(self, frame: StoredFrame) -> bool:
        """Returns whether a row continues the previous one, as far as that can be known. Updates
        `_offsets`."""
        end = self._end
        if frame.segment == end.sequence:
            after = next_frame(end, frame.kind, frame.payload).after
            self._offsets = [offset + after.byte_offset for offset in self._offsets]
            return self._holds(frame, after)
        if not 0 < frame.segment - end.sequence <= EMPTY_SEGMENTS_MAX:
            self._report(f"{frame.name} names segment {frame.segment}, after {end.sequence}")
            return False
        for headers in self._candidates(frame):
            after = next_frame(headers[-1], frame.kind, frame.payload).after
            if after.digest == frame.digest:
                self._compare(headers)
                self._offsets = [after.byte_offset]
                return True
        if end.position and not self._offsets:
            # A header holds the length of the previous segment, which is unknown. So the length of
            # the header itself is known, except for the digits of that number.
            self._counts.unlinked += 1
            lengths = {len(self._header(end, 10**digits)[0]) for digits in range(10)}
            length = next_frame(end, frame.kind, frame.payload).after.byte_offset
            self._offsets = [header_length + length for header_length in lengths]
            return True
        return self._holds(frame, None)

    def _candidates(self, frame: StoredFrame) -> Iterator[list[Place]]:
        """Yields the places after the headers that may lead to the segment of a row; the segments
        between are empty."""
        end = self._end
        for offset in self._offsets:
            yield list(self._headers(end, offset, frame.segment))
        if not end.position:
            # A log begins with segment 1, or after a damaged segment.
            firsts = {frame.segment, *range(1, min(frame.segment, FIRST_SEGMENTS_MAX) + 1)}
            for first in sorted(firsts, reverse=True):
                beginning = Place(first - 1, 0, 0, NO_DIGEST)
                yield list(self._headers(beginning, 0, frame.segment))

    def _headers(self, place: Place, offset: int, segment: int) -> Iterator[Place]:
        for _ in range(place.sequence, segment):
            content, digest = self._header(place, offset)
            offset = len(content)
            place = Place(place.sequence + 1, offset, place.position, digest)
            yield place

    def _header(self, place: Place, offset: int) -> tuple[bytes, bytes]:
        """Returns the header of the segment after a place: bytes and digest."""
        return encode_header(
            Header(
                origin=self._log.origin.rpartition("/")[2],  # without the reporter
                log_id=self._log.log_id,
                sequence=place.sequence + 1,
                position=place.position,
                previous_digest=place.digest,
                previous_bytes=offset,
            )
        )

    def _compare(self, headers: Iterable[Place]) -> None:
        for place in headers:
            found = self._on_disk.get((self._log, place.sequence), place.digest)
            if found != place.digest:
                self._report(
                    f"segment {place.sequence} on disk does not continue these rows: they were "
                    "rewritten"
                )

    def _holds(self, frame: StoredFrame, after: Place | None) -> bool:
        if after is not None and after.digest == frame.digest:
            return True
        self._report(f"{frame.name} is not what was shipped: edited, swapped or inserted")
        return False

    def _check_erasure(self, frame: StoredFrame) -> bool:
        """Returns whether the text was erased. Checks that an administration record says so."""
        known = self._tombstones.get((frame.log, frame.position), set())
        if frame.kind != KIND_RECORD:
            return False
        if tombstone_of(frame.payload) is None:
            if known:
                self._report(f"{frame.name} was erased, and its text is here again: erase it again")
            return False
        self._counts.erased += 1
        if sha256(frame.payload).hexdigest() not in known:
            self._report(f"{frame.name}: its text is missing, and no change records its erasure")
        return True

    def _check_columns(self, frame: StoredFrame) -> None:
        """Checks that the other columns, which filters use, agree with the record."""
        if frame.kind == KIND_ADMINISTRATION:
            self._check_change(frame)
        if frame.kind != KIND_RECORD:
            return
        place = Place(frame.segment, 0, frame.position + 1, frame.digest)
        shipped = Frame(frame.kind, frame.payload, frame.position, place, NO_DIGEST)
        try:
            want = record_row(shipped, frame.log, frame.row["reported_by"])
        except MalformedRecordError:
            self._report(f"{frame.name} does not hold a decision record")
            return
        erased = tombstone_of(frame.payload) is not None and frame.row["grant_id"] == ERASED_GRANT
        if frame.row["grant_id"] is None or erased:
            # An older version wrote the row, or the grant was erased. Reviews make no claim about
            # the time of such a decision.
            del want["grant_id"]
        self._compare_columns(frame, want)

    def _check_change(self, frame: StoredFrame) -> None:
        if frame.row["record"] is None:
            return  # deleted: its frame does not hold
        try:
            want = row_of(decode(frame.payload))
        except MalformedAdministrationRecordError:
            self._report(f"{frame.name} does not hold an administration record")
            return
        self._compare_columns(frame, want)

    def _compare_columns(self, frame: StoredFrame, want: Mapping[str, Any]) -> None:
        wrong = [
            name
            for name, value in want.items()
            if frame.row[name] != value and name not in _OF_COUNTS
        ]
        if wrong:
            self._report(f"{frame.name}: not as its record says: {', '.join(wrong)}")

    def _report(self, what: str) -> None:
        self._on_problem(self._log, what)
