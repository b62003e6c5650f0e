"""For which time the log holds every decision: never more than is true."""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine, delete, insert, select

from pdp.administration_records import Author, Source
from pdp.audit import Coverage, Findings, Missing, Period, Recorder, Shipper, SqlDestination
from pdp.audit.erasure import ErasureReport, ErasureRequest, erase_rows
from pdp.audit.segments import Log
from pdp.audit.tables import audit_gaps, audit_periods
from pdp.database.engine import begin_read, begin_write
from pdp.facts import Store
from pdp.model import Actor, Reason
from tests.kit import soak
from tests.kit.audit.records import decision_record
from tests.kit.reviews.logs import ALLOWED, NOW, record_at, store_records
from tests.kit.waiting import eventually, run

DAY = 86_400.0
WORLDS = soak.count(3_000, sample=8)
LOG_ID = "0" * 32


def state(engine: Engine, **fields: object) -> None:
    """Stores the period of a process that has ended properly, with the fields that are named."""
    row = {"id": str(fields), "origin": "pdp", "allows": True, "ended": True}
    with begin_write(engine) as connection:
        connection.execute(insert(audit_periods).values(row | fields))


def gap(engine: Engine, position: int, noticed_at: float, origin: str = "pdp") -> None:
    row = {"origin": origin, "log_id": LOG_ID, "segment": 1, "position": position}
    row |= {"noticed_at": noticed_at, "dropped": 3, "digest": bytes(32)}
    with begin_write(engine) as connection:
        connection.execute(insert(audit_gaps).values(row))


def coverage(engine: Engine, days: float = 90) -> Coverage:
    return Findings(engine).coverage(days * DAY, NOW)


def parts(covered: Coverage) -> list[tuple[float, float, Missing]]:
    """Uncovered times, in days before the end of the window."""
    return [
        ((part.since - covered.until) / DAY, (part.until - covered.until) / DAY, part.why)
        for part in covered.uncovered
    ]


def ended(engine: Engine, since: float, until: float, **fields: object) -> None:
    """A process that served from and to so many days before NOW."""
    state(
        engine,
        started_at=NOW + since * DAY,
        **{"complete_until": NOW + until * DAY, "seen_at": NOW + until * DAY} | fields,
    )


def test_without_periods_nothing_is_known(engine: Engine) -> None:
    assert parts(coverage(engine)) == [(-90, 0, Missing.UNKNOWN)]
    assert coverage(engine).covered_seconds == 0


def test_a_log_that_was_complete_all_the_time_has_no_uncovered_time(engine: Engine) -> None:
    ended(engine, -120, -40)
    ended(engine, -20, 0)
    found = coverage(engine)
    assert (found.since, found.until, found.uncovered) == (NOW - 90 * DAY, NOW, [])
    assert found.covered_seconds == 90 * DAY


def test_the_window_ends_when_the_log_of_the_serving_processes_is_complete(engine: Engine) -> None:
    ended(engine, -120, -1)
    state(engine, started_at=NOW - DAY, complete_until=NOW - 100, seen_at=NOW - 10, ended=False)
    state(engine, started_at=NOW - 2 * DAY, complete_until=NOW - 70, seen_at=NOW - 5, ended=False)
    found = coverage(engine)
    assert (found.until, found.uncovered) == (NOW - 100, [])


def test_time_in_which_one_process_did_not_log_allows_is_uncovered(engine: Engine) -> None:
    ended(engine, -120, 0)
    ended(engine, -30, -20, allows=False)
    found = coverage(engine)
    assert parts(found) == [(-30, -20, Missing.ALLOWS_NOT_LOGGED)]
    assert found.covered_seconds == pytest.approx(80 * DAY)


def test_time_before_the_first_period_is_unknown(engine: Engine) -> None:
    ended(engine, -30, 0)
    assert parts(coverage(engine)) == [(-90, -30, Missing.UNKNOWN)]


def test_a_crash_leaves_a_hole_whatever_is_shipped_later(engine: Engine) -> None:
    """Allows that waited in memory are lost without a trace."""
    crashed = {"ended": False, "complete_until": NOW - 20 * DAY, "seen_at": NOW - 19 * DAY}
    state(engine, started_at=NOW - 120 * DAY, **crashed)
    ended(engine, -18, 0)
    hole = (-20.0, pytest.approx(-19 + 120 / DAY), Missing.NOT_SHIPPED)
    assert parts(coverage(engine)) == [hole]


def test_a_gap_uncovers_the_time_since_the_record_before_it(engine: Engine) -> None:
    ended(engine, -120, 0)
    store_records(engine, [record_at(NOW - 9 * DAY, 1)], Log("pdp", LOG_ID))
    gap(engine, 1, NOW - 8 * DAY)
    assert parts(coverage(engine)) == [(pytest.approx(-9 - 60 / DAY), -8, Missing.GAP)]


def test_a_gap_of_a_sidecar_uncovers_nothing(engine: Engine) -> None:
    """A reporter must not spoil reviews: what it dropped was no decision of a decision point."""
    ended(engine, -120, 0)
    gap(engine, 1, NOW - 8 * DAY, "edge/pdp")
    assert parts(coverage(engine)) == []


def test_a_gap_without_a_record_before_it_uncovers_everything_before(engine: Engine) -> None:
    ended(engine, -120, 0)
    gap(engine, 1, NOW - 8 * DAY)
    assert parts(coverage(engine)) == [(-90, -8, Missing.GAP)]


def test_more_gaps_than_are_read_uncover_the_time_of_the_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.audit.coverage.GAPS_MAX", 2)
    ended(engine, -120, 0)
    store_records(engine, [record_at(NOW - 9 * DAY, 1)], Log("pdp", LOG_ID))
    for position, days in ((1, 8.9), (2, 5), (3, 4)):
        gap(engine, position, NOW - days * DAY)
    assert (-90, -5, Missing.GAP) in parts(coverage(engine))


def test_allows_of_an_older_version_beside_this_one_are_uncovered(engine: Engine) -> None:
    """It states no period; its records, without the column of the grant, give it away."""
    ended(engine, -120, 0)
    store_records(
        engine, [record_at(NOW - days * DAY, n, **ALLOWED) for n, days in enumerate((150, 9, 5))]
    )
    ((since, until, why),) = parts(coverage(engine))
    assert (since, until, why) == (-9, pytest.approx(-5 + 60 / DAY), Missing.OLDER_VERSION)


def test_the_time_of_erased_records_with_grants_is_uncovered_for_allows_and_denials(
    engine: Engine,
) -> None:
    ended(engine, -120, 0)
    denied: dict[str, object] = {"reason": Reason.DENIED_BY_RULE, "grant_id": "g1"}
    mine: dict[str, object] = {"actor": Actor("user_gone", "sess_1")}
    records = [
        record_at(NOW - 30 * DAY, 1, **denied),
        record_at(NOW - 20 * DAY, 2, **mine),  # a denial without a grant
        record_at(NOW - 9 * DAY, 3, **mine, **denied),
        record_at(NOW - 7 * DAY, 4, **mine, **ALLOWED, grant_id="g2"),
        record_at(NOW - 6 * DAY, 5, **ALLOWED, grant_id="g3"),
        record_at(NOW - 5 * DAY, 6, **mine, **denied, reported_by="edge"),
    ]
    store_records(engine, records)
    findings = Findings(engine)
    assert parts(coverage(engine)) == []
    assert findings.last_uses(["g1", "g2", "g3"]).keys() == {"g1", "g2", "g3"}

    def erase(user: str) -> None:
        request = ErasureRequest(user, NOW)
        author = Author(Source.COMMAND, "operator", "request 17")
        erase_rows(engine, lambda: Store(engine).write(author), request, NOW, ErasureReport())

    erase("user_gone")
    assert parts(coverage(engine)) == [(-9, pytest.approx(-7), Missing.ERASED)]
    assert findings.last_uses(["g1", "g2", "g3"]) == {
        "g1": NOW - 30 * DAY,
        "g3": NOW - 6 * DAY,
    }
    # What was decided before the window says nothing about it.
    assert parts(coverage(engine, days=6)) == []


def test_more_periods_than_are_read_leave_the_time_before_unknown(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that crashes again and again must not make a review slow."""
    monkeypatch.setattr("pdp.audit.coverage.PERIODS_MAX", 2)
    for since, until in ((-120, -50), (-40, -20), (-10, 0)):
        ended(engine, since, until)
    assert parts(coverage(engine)) == [(-90, -40, Missing.UNKNOWN)]


# --- the period of a process ----------------------------------------------------------------------


def test_a_process_that_stops_properly_leaves_a_complete_period(
    engine: Engine, tmp_path: Path
) -> None:
    recorder = Recorder(tmp_path, "pdp")
    period = Period(engine, origin="pdp", allows=True, clock=lambda: NOW)
    shipper = Shipper(tmp_path, SqlDestination(engine), recorder, period=period)
    recorder.start()
    shipper.start()
    run(recorder.try_write([decision_record(**ALLOWED, grant_id="g")]))

    def ended() -> list[bool]:
        with begin_read(engine) as connection:
            return list(connection.execute(select(audit_periods.c.ended)).scalars())

    eventually(lambda: ended() == [False])
    recorder.stop()
    shipper.stop()
    assert ended() == [True]


def test_a_loss_ends_the_period_with_a_hole_and_begins_another(engine: Engine) -> None:
    clock = Clock(NOW - 1_000)
    period = Period(engine, origin="pdp", allows=True, clock=lambda: clock.now)
    period.note(None, 0)
    for seconds, losses in ((200, 0), (400, 1), (600, 1)):
        clock.now = NOW - 1_000 + seconds
        period.note(clock.now, losses)
    found = Findings(engine).coverage(300, NOW - 300)
    assert [(part.since - NOW, part.until - NOW) for part in found.uncovered] == [(-760, -600)]
    assert found.until == NOW - 1_000 + 600 - 60


def test_a_period_is_stored_again_after_the_database_lost_it(engine: Engine) -> None:
    clock = Clock(NOW)
    period = Period(engine, origin="pdp", allows=True, clock=lambda: clock.now)
    period.note(None, 0)
    with begin_write(engine) as connection:
        connection.execute(delete(audit_periods))
    clock.now += 31
    period.note(clock.now, 0)
    with begin_read(engine) as connection:
        (row,) = connection.execute(select(audit_periods)).all()
    assert (row.started_at, row.seen_at, row.ended) == (NOW, NOW + 31, False)


@dataclass
class Process:
    """A server of the simulation: what it decided, and what of it is in SQL."""

    engine: Engine
    clock: "Clock"
    allows: bool
    pending: list[float] = field(default_factory=list)
    losses: int = 0

    def __post_init__(self) -> None:
        self.period = Period(
            self.engine, origin="pdp", allows=self.allows, clock=lambda: self.clock.now
        )
        self.note(None)

    def note(self, settled_at: float | None, *, ended: bool = False) -> None:
        self.period.note(settled_at, self.losses, ended=ended)


@dataclass
class Clock:
    now: float


@dataclass
class History:
    """Processes that start, stop, crash, drop records and fail to ship."""

    engine: Engine
    random: Random
    clock: Clock = field(default_factory=lambda: Clock(NOW))
    running: list[Process] = field(default_factory=list)
    crashed: list[Process] = field(default_factory=list)
    missing: list[float] = field(default_factory=list)
    """When decisions were made that are not in SQL."""

    def step(self) -> None:
        self.clock.now += self.random.choice([1, 10, 40, 80])
        if not self.running or (self.random.random() < 0.1 and len(self.running) < 3):
            self.start()
        for process in list(self.running):
            decided = process.pending if process.allows else self.missing
            decided.append(self.clock.now)
            self.clock.now += 0.1
            what = (self.ship, self.fail, self.lose, self.stop, self.crash, self.stop_unshipped)
            self.random.choices(what, (12, 4, 1, 1, 1, 1))[0](process)

    def start(self) -> None:
        allows = self.random.random() < 0.9
        pending: list[float] = []
        if self.crashed and self.random.random() < 0.5:
            # The directory is there: the new process ships what the old one left on disk.
            pending = self.crashed.pop().pending
            self.missing += [at for at in pending if self.random.random() < 0.3]
        self.running.append(Process(self.engine, self.clock, allows, pending))

    def ship(self, process: Process, *, ended: bool = False) -> None:
        process.pending.clear()
        process.note(self.clock.now, ended=ended)

    def fail(self, process: Process) -> None:
        process.note(None)

    def lose(self, process: Process) -> None:
        self.missing += process.pending
        process.losses += 1
        self.ship(process)

    def stop(self, process: Process) -> None:
        self.ship(process, ended=True)
        self.running.remove(process)

    def crash(self, process: Process) -> None:
        self.running.remove(process)
        self.crashed.append(process)

    def stop_unshipped(self, process: Process) -> None:
        process.note(None, ended=True)
        self.missing += process.pending
        self.running.remove(process)

    def end(self) -> float:
        """When a review asks. What is still on a disk is missing."""
        for process in (*self.running, *self.crashed):
            self.missing += process.pending
        return self.clock.now + self.random.choice([0, 30, 600])


def simulate(engine: Engine, random: Random) -> tuple[list[float], float]:
    """Returns when decisions were made that are not in SQL, and the time at the end."""
    with begin_write(engine) as connection:
        connection.execute(delete(audit_periods))
    history = History(engine, random)
    for _ in range(random.randint(5, 60)):
        history.step()
    now = history.end()
    return history.missing, now


def compare(engine: Engine) -> tuple[float, int]:
    """How many seconds of all histories are covered, and how many decisions are missing."""
    covered, lost = 0.0, 0
    for seed in range(WORLDS):
        missing, now = simulate(engine, Random(seed))
        found = Findings(engine).coverage(3_600.0, now)
        lost += len(missing)
        covered += found.covered_seconds
        for at in missing:
            within = any(part.since <= at <= part.until for part in found.uncovered)
            outside = not found.since <= at < found.until
            assert within or outside, f"seed {seed}: {NOW - at}, {found}"
    return covered, lost


@pytest.mark.soak
def test_no_decision_is_missing_from_a_time_that_is_called_covered(engine: Engine) -> None:
    """Random histories; a review may claim too little, and never too much."""
    covered, lost = compare(engine)
    assert lost > WORLDS
    assert covered > WORLDS * 60, "a review that never claims anything proves little"


def test_a_review_that_trusts_the_last_confirmation_is_found_out(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    monkeypatch.setattr("pdp.audit.coverage.UNSEEN_SECONDS_MAX", 0)
    with pytest.raises(AssertionError, match="seed"):
        compare(engine)
