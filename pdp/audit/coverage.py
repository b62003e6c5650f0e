"""For which time the log in SQL holds every decision.

Each server process keeps a row in `audit_periods`: since when it serves, whether it logs allows,
and up to when all its decisions are in SQL. So a reader can tell "no decision used it" from "no
logged decision used it". What is not proven to be complete counts as uncovered.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Engine, func, insert, select, text, update

from pdp.audit.records import first_id_at, new_decision_id
from pdp.audit.tables import (
    ALLOW_WITHOUT_GRANT,
    ERASED_GRANT,
    audit_gaps,
    audit_periods,
    audit_records,
)
from pdp.clock import Clock
from pdp.database.engine import begin_read, begin_write
from pdp.errors import DatabaseUnavailable

NOTE_SECONDS: Final = 30.0
"""How often a process confirms its period."""
UNSEEN_SECONDS_MAX: Final = 120.0
"""How long a process may have served after its last confirmation. Confirmations need the same
database as the replica's registration, without which no process answers for longer."""
DECIDING_SECONDS_MAX: Final = 60.0
"""The longest time from the decision to its record in the queue; requests end long before."""
PERIODS_MAX: Final = 20_000
SILENT_SECONDS: Final = 3_600.0
PROCESSES_MAX: Final = 100
GAPS_MAX: Final = 1_000
"""Periods and gaps that are read; the time of what is left out is uncovered."""

_log = structlog.get_logger(__name__)


class Missing(Enum):
    """Why decisions of a time may be missing from the log."""

    UNKNOWN = "before a server first stated what it logs"
    ALLOWS_NOT_LOGGED = "a process did not log allows (set audit_allows)"
    NOT_SHIPPED = "a process ended, or lost records, before all of them were in the database"
    GAP = "records were dropped"
    OLDER_VERSION = "a process of an older version logged"
    """It states neither grants nor periods."""
    ERASED = "records were erased on request"
    """Their decisions may have used any grant."""


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A time of which the log may lack decisions; seconds since 1970-01-01 UTC."""

    since: float
    until: float
    why: Missing


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is known about a window of the log; seconds since 1970-01-01 UTC."""

    since: float
    until: float
    """At most the time up to which all processes that serve now have shipped everything."""
    uncovered: Sequence[Uncovered]
    """Parts of the window, by their begin. Parts for different reasons may overlap."""

    @property
    def covered_seconds(self) -> float:
        """For how long nothing is missing."""
        covered, reached = 0.0, self.since
        for part in self.uncovered:
            covered += max(0.0, part.since - reached)
            reached = max(reached, part.until)
        return covered + max(0.0, self.until - reached)


class Period:
    """The period of this process. For one thread."""

    def __init__(self, engine: Engine, *, origin: str, allows: bool, clock: Clock) -> None:
        """Begins a period now.

        Args:
            engine: The database.
            origin: The origin of the process's log.
            allows: Whether the process logs allows.
            clock: The time of decisions.
        """
        self._engine = engine
        self._clock = clock
        self._row: dict[str, Any] = {"origin": origin, "allows": allows}
        self._losses = 0
        self._begin(clock())
        self._noted_at = float("-inf")
        self._failing = False

    def _begin(self, now: float) -> None:
        self._row |= {"id": new_decision_id(), "started_at": now, "complete_until": now}

    def note(self, settled_at: float | None, losses: int, *, ended: bool = False) -> None:
        """Stores that the process serves, and up to when its log is complete in SQL. A failure is
        retried at a later call.

        Args:
            settled_at: All records that were queued before then are in SQL; None: not known.
            losses: A number that grows when records may have been lost.
            ended: Whether the process decides no more.
        """
        now = self._clock()
        if not ended and now < self._noted_at + NOTE_SECONDS:
            return
        self._noted_at = now
        if losses != self._losses:
            # What was lost was not in SQL yet, so it is later than `complete_until`.
            if not self._store(now, ended=True):
                return
            self._begin(now)
        self._losses = losses
        if settled_at is not None:
            until = settled_at if ended else settled_at - DECIDING_SECONDS_MAX
            self._row["complete_until"] = max(self._row["complete_until"], until)
        self._store(now, ended=ended)

    def _store(self, now: float, *, ended: bool) -> bool:
        row = self._row | {"seen_at": now, "ended": ended}
        try:
            with begin_write(self._engine) as connection:
                own = update(audit_periods).where(audit_periods.c.id == row["id"]).values(row)
                # The row may exist: the confirmation of an earlier insert may have been lost.
                if not connection.execute(own).rowcount:
                    connection.execute(insert(audit_periods).values(row))
        except DatabaseUnavailable as error:
            if not self._failing:
                _log.warning("audit_period_not_stored", error=error.message)
            self._failing = True
            return False
        self._failing = False
        return True


@dataclass(frozen=True, slots=True)
class _Period:
    """A row of `audit_periods`."""

    id: str
    origin: str
    allows: bool
    started_at: float
    complete_until: float
    seen_at: float
    ended: bool

    def last_at(self, now: float) -> float:
        """Up to when the process may have decided."""
        return self.seen_at if self.ended else min(now, self.seen_at + UNSEEN_SECONDS_MAX)

    def serves(self, now: float) -> bool:
        """Whether the process may still decide."""
        return not self.ended and now < self.seen_at + UNSEEN_SECONDS_MAX


def read_coverage(connection: Connection, seconds: float, now: float) -> Coverage:
    """Returns the coverage of the last `seconds` before the time up to which the log is complete.

    Args:
        connection: An open transaction.
        seconds: The length of the window.
        now: Seconds since 1970-01-01 UTC.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    column = audit_periods.c
    statement = (
        select(audit_periods)
        .where(column.seen_at > now - seconds - UNSEEN_SECONDS_MAX)
        .order_by(column.started_at.desc())
        .limit(PERIODS_MAX)
    )
    periods = [_Period(*row) for row in connection.execute(statement)]
    until = min([now, *(period.complete_until for period in periods if period.serves(now))])
    since = until - seconds
    # The oldest of all, not only of those that were read.
    first = connection.execute(select(func.min(column.started_at))).scalar_one()
    if len(periods) == PERIODS_MAX:
        first = periods[-1].started_at
    found = [Uncovered(since, until if first is None else first, Missing.UNKNOWN)]
    for period in periods:
        found += _missing_of(period, now)
    found += _gaps(connection, since)
    if first is not None:
        found += _of_older_versions(connection, max(first, since))
        found += _erased(connection, max(first, since))
    within = (Uncovered(max(since, part.since), min(until, part.until), part.why) for part in found)
    parts = sorted(
        (part for part in within if part.since < part.until),
        key=lambda part: (part.since, part.until),
    )
    return Coverage(since, until, parts)


@dataclass(frozen=True, slots=True)
class Process:
    """A server process that states what it logs; seconds since 1970-01-01 UTC."""

    origin: str
    allows: bool
    """Whether it logs allows."""
    started_at: float
    complete_until: float
    """All its decisions before are in SQL."""
    seen_at: float
    serves: bool
    """Whether it has been seen lately. If not, it ended without saying so."""


def read_processes(engine: Engine, now: float) -> Sequence[Process]:
    """Returns the processes that serve, and those that fell silent within SILENT_SECONDS, by
    origin. Raises DatabaseUnavailable."""
    column = audit_periods.c
    statement = (
        select(audit_periods)
        .where(column.ended.is_(False), column.seen_at > now - SILENT_SECONDS)
        .order_by(column.origin, column.started_at.desc())
        .limit(PROCESSES_MAX)
    )
    with begin_read(engine) as connection:
        periods = [_Period(*row) for row in connection.execute(statement)]
    return [
        Process(
            period.origin,
            period.allows,
            period.started_at,
            period.complete_until,
            period.seen_at,
            period.serves(now),
        )
        for period in periods
    ]


def _missing_of(period: _Period, now: float) -> Iterator[Uncovered]:
    last_at = period.last_at(now)
    if not period.allows:
        yield Uncovered(period.started_at, last_at, Missing.ALLOWS_NOT_LOGGED)
    # After a crash too, whatever was shipped later: allows that were only queued are lost.
    yield Uncovered(period.complete_until, last_at, Missing.NOT_SHIPPED)


def _gaps(connection: Connection, since: float) -> Iterator[Uncovered]:
    """Yields when decision points dropped records: from the last record before the gap on."""
    gap, record = audit_gaps.c, audit_records.c
    statement = (
        select(gap.origin, gap.log_id, gap.position, gap.noticed_at)
        # A name with a slash is a sidecar's, which decides nothing.
        .where(gap.dropped > 0, gap.noticed_at > since, gap.origin.not_like("%/%"))
        .order_by(gap.noticed_at.desc())
        .limit(GAPS_MAX)
    )
    rows = connection.execute(statement).all()
    if len(rows) == GAPS_MAX:
        yield Uncovered(since, rows[-1].noticed_at, Missing.GAP)
    for row in rows:
        before = (
            select(record.decided_at)
            .where(record.origin == row.origin, record.log_id == row.log_id)
            .where(record.position < row.position)
            .order_by(record.position.desc())
            .limit(1)
        )
        decided_at = connection.execute(before).scalar_one_or_none()
        begin = since if decided_at is None else decided_at - DECIDING_SECONDS_MAX
        yield Uncovered(begin, row.noticed_at, Missing.GAP)


def _of_older_versions(connection: Connection, since: float) -> Iterator[Uncovered]:
    column = audit_records.c
    statement = select(func.min(column.decided_at), func.max(column.decided_at)).where(
        text(ALLOW_WITHOUT_GRANT),
        func.coalesce(column.reported_by, "") == "",
        column.decision_id >= first_id_at(since),
    )
    first, last = connection.execute(statement).one()
    if first is not None:
        yield Uncovered(first, last + DECIDING_SECONDS_MAX, Missing.OLDER_VERSION)


def _erased(connection: Connection, since: float) -> Iterator[Uncovered]:
    column = audit_records.c
    last_at = func.coalesce(column.last_decided_at, column.decided_at)
    statement = select(func.min(column.decided_at), func.max(last_at)).where(
        column.grant_id == ERASED_GRANT,
        column.grant_id.is_not(None),
        func.coalesce(column.reported_by, "") == "",
        last_at >= since,
    )
    first, last = connection.execute(statement).one()
    if first is not None:
        yield Uncovered(first, math.nextafter(last, math.inf), Missing.ERASED)
