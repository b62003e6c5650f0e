"""Fills a database with a company and a long decision log, for measurements and large tests.

The way of the log (a segment, then the shipper) takes minutes for a million records. Here some
ten thousand questions are decided once, by the evaluator. The records of the log are copies of
these decisions with times and ids of their own, chained as a segment chains them, and go into the
log's tables with the counts of the charts and the statement that the log is complete. So
`pdp audit verify`, searches, charts and reviews see what they see of a real log.

Indexes are created after the rows: that takes a third of the time.
"""

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from random import Random
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, insert
from sqlalchemy.dialects import sqlite

from examples.company import Company, history
from pdp.audit import KIND_RECORD, Frame, Log, Place
from pdp.audit.destinations import put_place
from pdp.audit.rollups import Rollups
from pdp.audit.rows import Row, record_row
from pdp.audit.segments import NO_DIGEST, Header, encode_header, next_frame
from pdp.audit.tables import audit_periods, audit_records, audit_rollups
from pdp.database.engine import begin_write, extended_timeouts
from pdp.facts import Store
from pdp.kinds import KINDS
from pdp.model import Entity

DAY: Final = 86_400
TEMPLATES: Final = 10_000
"""Questions that are decided."""
ORIGIN: Final = "history"
ROWS_AT_ONCE: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Template:
    """A decided question: its row, and its record before and behind time and id."""

    row: Row
    before: str
    behind: str


def load_company(engine: Engine, made: Company) -> None:
    """Writes the entities into a migrated, empty database. Raises DatabaseUnavailable."""
    with Store(engine).write() as transaction:
        transaction.apply_many(_entities(made))


def _entities(made: Company) -> Iterator[Entity]:
    for kind in KINDS:
        yield from made.document.section(kind) or ()


def load_history(
    engine: Engine, made: Company, *, end: float, days: int, decisions: int, seed: int = 1
) -> None:
    """Writes so many decisions of the days before `end` (Unix seconds) into an empty log, most of
    them in working hours. Raises DatabaseUnavailable."""
    random = Random(seed)
    templates = list(_templates(made, min(TEMPLATES, decisions), seed))
    times = sorted(_times(random, end, days, decisions))
    log = Log(ORIGIN, f"{seed:032x}")
    rollups = Rollups()
    with begin_write(engine) as connection, extended_timeouts(connection):
        for index in audit_records.indexes:
            index.drop(connection)
        rows = _Rows(log, templates, times, random, rollups)
        _insert(connection, audit_records, iter(rows))
        put_place(connection, log, rows.place)
        _insert(connection, audit_rollups, _rollup_rows(rollups))
        connection.execute(insert(audit_periods).values(_period(end, days)))
        for index in audit_records.indexes:
            index.create(connection)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def _templates(made: Company, count: int, seed: int) -> Iterator[_Template]:
    for content in history(made, 1.9e9, 24, count, seed):
        payload = content.removeprefix(KIND_RECORD)
        frame = next_frame(Place(1, 0, 0, NO_DIGEST), KIND_RECORD, payload)
        row = record_row(frame, Log("", ""))
        text: str = row["record"]
        before, _, rest = text.partition('"decided_at":')
        yield _Template(row, before, rest[rest.index('"effect":') :])


def _times(random: Random, end: float, days: int, count: int) -> Iterator[float]:
    """Of working days, with a peak in the afternoon. Seconds since 1970-01-01 UTC."""
    first_day = int(end // DAY) - days
    weights = [0.1 if (first_day + day + 3) % 7 > 4 else 1.0 for day in range(days + 1)]
    totals = list(accumulate(weights))
    while count:
        day = bisect(totals, random.random() * totals[-1])
        at = (first_day + day + (random.gauss(0.58, 0.1) % 1)) * DAY
        if end - days * DAY <= at < end:
            count -= 1
            yield round(at, 3)


class _Rows:
    """The rows of the log, oldest first. Counts them in `rollups`; `place` is behind the last."""

    def __init__(
        self,
        log: Log,
        templates: list[_Template],
        times: list[float],
        random: Random,
        rollups: Rollups,
    ) -> None:
        header, digest = encode_header(Header(log.origin, log.log_id, 1, 0, NO_DIGEST, 0))
        self.place = Place(1, len(header), 0, digest)
        self._log, self._templates, self._times = log, templates, times
        self._random, self._rollups = random, rollups

    def __iter__(self) -> Iterator[Row]:
        place = self.place
        choose, bits, count = self._random.choice, self._random.getrandbits, self._rollups.add
        common = {"origin": self._log.origin, "log_id": self._log.log_id, "segment": 1}
        for at in self._times:
            template = choose(self._templates)
            digits, number = f"{int(at * 1000):012x}", bits(74)
            decision_id = (
                f"{digits[:8]}-{digits[8:]}-7{number >> 62:03x}-"
                f"{0x8000 | number >> 48 & 0x3FFF:04x}-{number & 0xFFFFFFFFFFFF:012x}"
            )
            record = (
                f'{template.before}"decided_at":{at!r},"decision_id":"{decision_id}",'
                f"{template.behind}"
            )
            frame: Frame = next_frame(place, KIND_RECORD, record.encode("ascii"))
            row = template.row | common
            row["decision_id"], row["decided_at"], row["record"] = decision_id, at, record
            row["position"], row["digest"] = place.position, frame.after.digest
            place = frame.after
            count(row, at)
            yield row
        self.place = place


def _rollup_rows(rollups: Rollups) -> Iterator[Row]:
    names = ("step", "dimension", "start", "value")
    for key, decisions in sorted(rollups.counts().items()):
        yield dict(zip(names, key, strict=True)) | {"decisions": decisions}


def _period(end: float, days: int) -> dict[str, Any]:
    """Says that the log is complete."""
    return {
        "id": ORIGIN,
        "origin": ORIGIN,
        "allows": True,
        "started_at": end - days * DAY,
        "complete_until": end,
        "seen_at": end,
        "ended": True,
    }


def _insert(connection: Connection, table: Table, rows: Iterator[Row]) -> None:
    names = [column.name for column in table.columns]
    if connection.dialect.name == "postgresql":
        columns = ", ".join(names)
        cursor: Any = connection.connection.cursor()
        with cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row([row[name] for name in names])
        return
    sql = str(sqlite.insert(table).compile(dialect=connection.dialect))
    while batch := [tuple(row[name] for name in names) for row in islice(rows, ROWS_AT_ONCE)]:
        connection.exec_driver_sql(sql, batch)
