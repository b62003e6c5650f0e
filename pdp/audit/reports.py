"""Stores the logs that sidecars report.

A reporter is trusted for its own records only. Its rows carry its name in their key (see
`rows.row_key`) and in `reported_by`, and so do its logs. So it can replace neither the record of a
decision point nor that of another caller. Of its own records with one id, the first is kept. It
makes no decisions, so it must not report any as decided.

The digests are computed here, from the place at which the reporter says that its frames begin. If
the result differs from the reporter's own chain, frames were lost or altered on the way.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog
from sqlalchemy import Connection, Engine, select

from pdp.audit.counts import Count, Counts, count_of
from pdp.audit.destinations import Refusal, put_place, read_place
from pdp.audit.records import AnswerSource, MalformedRecordError, decode
from pdp.audit.rollups import RecordsRepeated, Rollups, insert_counted
from pdp.audit.rows import Row, gap_row, insert_new, payload_of, record_row
from pdp.audit.segments import (
    DIGEST_BYTES,
    KIND_RECORD,
    Frame,
    Log,
    Place,
    check_origin,
    next_frame,
)
from pdp.audit.tables import audit_gaps, audit_records
from pdp.audit.tombstones import record_digest
from pdp.clock import Clock
from pdp.database.engine import begin_read, begin_write
from pdp.errors import AuditUnavailable, InvalidRequest, LimitExceeded, Violation
from pdp.limits import REPORT_FRAMES_MAX, REPORT_RECORD_BYTES_MAX
from pdp.model import Effect, Reason
from pdp.strict_json import is_deeper

RECORD_DEPTH_MAX: Final = 16
"""The deepest nesting of a reported record. Ours have three levels."""
AHEAD_SECONDS_MAX: Final = 60.0
"""How far in the future a record may be: it would be listed before all later decisions. The past is
not bounded: a sidecar may have been disconnected for long."""
CONCURRENT_REPORTS_MAX: Final = 4
CONCURRENT_REPORTS_EACH_MAX: Final = 2
"""For one caller: a busy reporter must not block the others."""
YIELD_FRAMES: Final = 16
YIELD_SECONDS: Final = 0.0002
_NUMBER_MAX: Final = (1 << 63) - 1
_PLACE_MAX: Final = 1 << 53
_LOG_ID: Final = re.compile(r"[0-9a-f]{32}\Z", re.ASCII)
_DECISION_ID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z", re.ASCII
)

_log = structlog.get_logger(__name__)


class Reports:
    """Accepts reports of callers. Thread-safe."""

    def __init__(self, engine: Engine, *, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        # A slow database must not occupy all threads that answer requests.
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()

    def place(self, reporter: str, log: Log) -> Place | None:
        """Returns how far a log of this caller is stored; None: not at all.

        Raises:
            InvalidRequest: The log's name is not valid.
            AuditUnavailable: Too many reports run concurrently.
            DatabaseUnavailable: The database does not answer.
        """
        log = _own(reporter, log)
        with self._slot(reporter), begin_read(self._engine) as connection:
            return read_place(connection, log)

    def take(
        self, reporter: str, log: Log, start: Place, contents: Sequence[tuple[bytes, bytes]]
    ) -> tuple[Place, Sequence[Refusal]]:
        """Stores consecutive frames of a log.

        Args:
            reporter: The name of the caller.
            log: The log.
            start: The place of the first frame.
            contents: Kind and payload of each frame.

        Returns:
            The place after the frames, once they are committed, and the refused frames.

        Raises:
            InvalidRequest: An argument is not valid; a retry does not help.
            LimitExceeded: There are more than REPORT_FRAMES_MAX frames; a retry does not help.
            AuditUnavailable: Too many reports run concurrently.
            DatabaseUnavailable: The database does not answer.
        """
        if len(contents) > REPORT_FRAMES_MAX:
            raise LimitExceeded("report_frames_max", REPORT_FRAMES_MAX, len(contents))
        _check_place(start)
        log = _own(reporter, log)
        with self._slot(reporter):
            return self._take(reporter, log, start, contents)

    @contextmanager
    def _slot(self, reporter: str) -> Iterator[None]:
        """Occupies one of the slots. Raises AuditUnavailable if none is free."""
        with self._lock:
            if (
                self._busy.total() >= CONCURRENT_REPORTS_MAX
                or self._busy[reporter] >= CONCURRENT_REPORTS_EACH_MAX
            ):
                raise AuditUnavailable("too many report at once")
            self._busy[reporter] += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy[reporter] -= 1

    def _take(
        self, reporter: str, log: Log, place: Place, contents: Sequence[tuple[bytes, bytes]]
    ) -> tuple[Place, Sequence[Refusal]]:
        records: list[Row] = []
        gaps: list[Row] = []
        counts = Counts(log, reporter)
        malformed: list[Refusal] = []
        latest = self._clock() + AHEAD_SECONDS_MAX
        for number, (kind, payload) in enumerate(contents):
            if number % YIELD_FRAMES == 0:
                time.sleep(YIELD_SECONDS)  # as the shipper does
            frame = next_frame(place, kind, payload)
            place = frame.after
            try:
                if kind == KIND_RECORD:
                    records.append(_record_row(frame, log, reporter, latest))
                elif count := _count_of(frame, latest):
                    counts.add(frame, count)
                else:
                    gaps.append(_gap_row(frame, log, latest))
            except MalformedRecordError as error:
                malformed.append(Refusal(frame.position, str(error)))

        def store(*, repeated: bool) -> list[Refusal]:
            rollups = Rollups()
            refusals = list(malformed)
            with begin_write(self._engine) as connection:
                if not insert_counted(connection, records, rollups, repeated=repeated):
                    refusals += _contradictions(connection, records)
                insert_new(connection, audit_gaps, gaps)
                missing = counts.write(connection, rollups)
                refusals += (Refusal(*problem) for problem in missing)
                if not refusals:
                    put_place(connection, log, place)
                rollups.write(connection)
            return refusals

        try:
            refusals = store(repeated=False)
        except RecordsRepeated:
            refusals = store(repeated=True)
        if refusals:
            _log.error(
                "audit_report_refused",
                reported_by=reporter,
                origin=log.origin,
                frames=len(refusals),
                first=refusals[0].what,
            )
        return place, refusals


def _own(reporter: str, log: Log) -> Log:
    """Prefixes the origin with the caller's name. A decision point's origin holds no slash."""
    try:
        check_origin(log.origin)
    except ValueError as error:
        raise InvalidRequest(Violation("origin", str(error))) from None
    if not _LOG_ID.match(log.log_id):
        raise InvalidRequest(Violation("log_id", "is not 32 hexadecimal digits"))
    return Log(f"{reporter}/{log.origin}", log.log_id)


def _check_place(place: Place) -> None:
    numbers = (
        ("segment", place.sequence),
        ("byte_offset", place.byte_offset),
        ("position", place.position),
    )
    for field, number in numbers:
        if not 0 <= number <= _PLACE_MAX:
            raise InvalidRequest(Violation(f"start.{field}", f"must be 0 to {_PLACE_MAX}"))
    if len(place.digest) != DIGEST_BYTES:
        raise InvalidRequest(Violation("start.digest", f"must be {DIGEST_BYTES} bytes"))


def _record_row(frame: Frame, log: Log, reporter: str, latest: float) -> Row:
    """Converts a record that a reporter may write and that `decode` can read: an unreadable record
    would break every list that contains it. Raises MalformedRecordError."""
    if len(frame.payload) > REPORT_RECORD_BYTES_MAX:
        raise MalformedRecordError("the record is too long")
    if not frame.payload.isascii():
        raise MalformedRecordError("not a decision record")
    text = frame.payload.decode()  # from bytes, JSON would guess the encoding
    if is_deeper(text, RECORD_DEPTH_MAX):
        raise MalformedRecordError("the record is nested too deeply")
    record = decode(text)
    if not _DECISION_ID.match(record.decision_id):
        raise MalformedRecordError("the decision id is not a UUIDv7")
    if record.source is AnswerSource.DECIDED:
        raise MalformedRecordError("only a decision point may report a decision as decided")
    if record.erased_at is not None:
        raise MalformedRecordError("a record is not reported as erased")
    if record.query is not None or record.reason is Reason.QUERY_ANSWERED:
        raise MalformedRecordError("only a decision point answers queries")
    if (record.effect is Effect.ALLOW) != (record.reason is Reason.ALLOWED_BY_RULE):
        raise MalformedRecordError("the reason is not one of the decision")
    made_at = int(record.decision_id.replace("-", "")[:12], 16) / 1000  # RFC 9562, 5.7
    if not (0 <= record.decided_at <= latest and made_at <= latest):
        raise MalformedRecordError("the record is from the future, or from before 1970")
    if not 0 <= record.revision <= _NUMBER_MAX:
        raise MalformedRecordError("the revision is impossible")
    if not _is_unicode(frame.payload):
        raise MalformedRecordError("a text is not Unicode")
    if not _is_canonical(frame.payload):
        raise MalformedRecordError("the record is not canonical")
    return record_row(frame, log, reporter)


def _count_of(frame: Frame, latest: float) -> Count | None:
    count = count_of(frame.payload)
    if count is not None and not (
        _DECISION_ID.match(count.decision_id) and 0 <= count.last_decided_at <= latest
    ):
        raise MalformedRecordError("not a count")
    return count


def _gap_row(frame: Frame, log: Log, latest: float) -> Row:
    row = gap_row(frame, log)
    if not (0 < row["dropped"] <= _NUMBER_MAX and 0 <= row["noticed_at"] <= latest):
        raise MalformedRecordError("not a gap")
    return row


def _is_unicode(payload: bytes) -> bool:
    """Returns whether JSON holds no lone surrogate: protocol buffers cannot."""
    try:
        json.dumps(json.loads(payload), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_canonical(payload: bytes) -> bool:
    """Returns whether JSON is written as `records.encode` does. Otherwise a record could hide text:
    in a duplicate key, which no reader shows, or in an escape, which a search in the bytes misses.
    An erasure would leave it there."""
    text = json.dumps(json.loads(payload), sort_keys=True, separators=(",", ":"))
    return text.encode() == payload


def _contradictions(connection: Connection, records: Sequence[Row]) -> list[Refusal]:
    """Returns the records whose id this caller has already used for another record."""
    column = audit_records.c
    keys = [row["decision_id"] for row in records]
    statement = select(column.decision_id, column.record).where(column.decision_id.in_(keys))
    stored = {row.decision_id: _digest(row.record) for row in connection.execute(statement)}
    return [
        Refusal(row["position"], "another record was reported under this decision id")
        for row in records
        if stored.get(row["decision_id"]) != _digest(row["record"])
    ]


def _digest(record: str) -> bytes:
    """The digest of a record, which may have been erased since it was reported."""
    return record_digest(payload_of(record))
