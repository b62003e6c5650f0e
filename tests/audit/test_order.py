"""Reading the decision log from a cursor on: each record once, however late its log arrives."""

import threading
from pathlib import Path
from unittest.mock import patch

import pytest
from sqlalchemy import Engine, insert, text

from pdp.administration_records import AdministrationRecord, Author, Source
from pdp.administrator import Administrator
from pdp.audit import (
    Cursor,
    DecisionFilter,
    DecisionLog,
    Gap,
    Recorder,
    Shipper,
    SqlDestination,
    append_records,
)
from pdp.audit import queries as audit_queries
from pdp.audit.order import number_new
from pdp.audit.tables import audit_order
from pdp.database.engine import begin_write
from pdp.errors import InvalidRequest
from pdp.facts import Store
from pdp.model import Effect, Permission
from tests.kit.audit.logs import ORIGIN, frames_of
from tests.kit.audit.records import decision_record
from tests.kit.waiting import eventually, run

ALL = DecisionFilter()


class Replica:
    """A process with its own log, which ships when the test calls it."""

    def __init__(self, directory: Path, engine: Engine, origin: str) -> None:
        self.directory = directory / origin
        self.recorder = Recorder(self.directory, origin)
        self.recorder.start()
        self.shipper = Shipper(self.directory, SqlDestination(engine), self.recorder)

    def record(self, count: int = 1, **changes: object) -> list[str]:
        records = [decision_record(**changes) for _ in range(count)]
        run(self.recorder.record(records))
        return [record.decision_id for record in records]


def read(log: DecisionLog, cursor: Cursor, limit: int = 3, where: DecisionFilter = ALL):
    """All ids behind a cursor, by pages, and the cursor behind them."""
    ids: list[str] = []
    while True:
        page = log.follow(where, cursor, limit)
        assert len(page.records) <= limit
        ids += [record.decision_id for record, _ in page.records]
        cursor = page.cursor
        if not page.more:
            return ids, cursor


def test_what_ships_late_is_seen_once_though_it_is_older(tmp_path: Path, engine: Engine) -> None:
    one, two = Replica(tmp_path, engine, "one"), Replica(tmp_path, engine, "two")
    log = DecisionLog(engine)
    late, early = two.record(4), one.record(5)
    one.shipper.ship()
    seen, cursor = read(log, Cursor())
    assert seen == early
    two.shipper.ship()
    more = one.record(2)
    one.shipper.ship()
    seen, cursor = read(log, cursor)
    assert sorted(seen) == sorted(late + more)
    assert read(log, cursor) == ([], cursor)
    everything, _ = read(log, Cursor(), 100)
    assert sorted(everything) == sorted(early + late + more)


def test_the_cursor_of_each_record_is_the_place_behind_it(tmp_path: Path, engine: Engine) -> None:
    one, two = Replica(tmp_path, engine, "one"), Replica(tmp_path, engine, "two")
    log = DecisionLog(engine)
    for replica in (one, two, one):
        replica.record(3)
        replica.shipper.ship()
        read(log, Cursor())
    found = log.follow(ALL, Cursor(), 100).records
    ids = [record.decision_id for record, _ in found]
    assert len(ids) == 9
    for index, (_, cursor) in enumerate(found):
        assert read(log, cursor)[0] == ids[index + 1 :]
    assert read(log, log.end())[0] == []


def test_changes_and_gaps_come_at_their_places_and_a_reader_may_stop_at_each(
    tmp_path: Path, engine: Engine
) -> None:
    replica, log = Replica(tmp_path, engine, "one"), DecisionLog(engine)
    administrator = Administrator(Store(engine), lambda _: None)
    expected: list[object] = []
    for number in range(3):
        expected += replica.record(2)
        with patch("pdp.audit.writer.write_all", side_effect=OSError(5, "the disk fails")):
            run(replica.recorder.try_write([decision_record(effect=Effect.ALLOW)] * (number + 1)))
            eventually(lambda: replica.recorder.counts().waiting == 0)
        after_gap = replica.record(1)
        replica.shipper.ship()
        number_new(engine)
        expected += [number + 1, *after_gap]
        administrator.create(Permission(f"course:p{number}"), Author(Source.API, "caller"))
        append_records(engine)
        number_new(engine)
        expected.append((f"course:p{number}",))

    def read_all(cursor: Cursor, limit: int) -> list[object]:
        found: list[object] = []
        while True:
            page = log.follow(ALL, cursor, limit, with_changes_and_gaps=True)
            assert len(page.records) <= limit
            found += [named(record) for record, _ in page.records]
            cursor = page.cursor
            if not page.more:
                return found

    for limit in (1, 2, 100):
        assert read_all(Cursor(), limit) == expected
    followed = log.follow(ALL, Cursor(), 100, with_changes_and_gaps=True).records
    for index, (_, cursor) in enumerate(followed):
        assert read_all(cursor, 100) == expected[index + 1 :]
        assert log.waiting(cursor) >= len(expected) - index - 1
    assert log.waiting(log.end()) == 0
    decisions = [record for record in expected if isinstance(record, str)]
    assert read(log, Cursor())[0] == decisions


def test_what_waits_is_counted_up_to_a_bound(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a forwarder that is far behind could not read its first page in time."""
    monkeypatch.setattr("pdp.audit.order.WAITING_RANGES_MAX", 3)
    values = {"origin": ORIGIN, "log_id": "0" * 32}
    ranges = [{"number": n, "first": 10 * n, "end": 10 * n + 10, **values} for n in range(1, 6)]
    with begin_write(engine) as connection:
        connection.execute(insert(audit_order), ranges)
    log = DecisionLog(engine)
    assert log.waiting(Cursor()) == 30
    assert log.waiting(Cursor(1, 14)) == 6 + 30
    assert log.waiting(Cursor(4, 45)) == 5 + 10


def named(record: object) -> object:
    """What a test knows a record by."""
    if isinstance(record, Gap):
        return record.dropped
    return record.key if isinstance(record, AdministrationRecord) else record.decision_id


def test_a_transaction_that_began_before_and_commits_after_is_not_lost(
    tmp_path: Path, postgresql_url: str
) -> None:
    """Ordered by a sequence or a time, the later of the two would hide the earlier."""
    from pdp.database.engine import open_engine

    engine = open_engine(postgresql_url)
    log = DecisionLog(engine)
    slow, quick = Replica(tmp_path, engine, "slow"), Replica(tmp_path, engine, "quick")
    first = slow.record()
    frames = frames_of(slow.recorder.directory)
    inserted, go_on = threading.Event(), threading.Event()

    class Halting(SqlDestination):
        def commit(self, log_, frames_):
            with begin_write(engine) as connection:
                from pdp.audit.destinations import put_place
                from pdp.audit.rows import insert_new, record_row
                from pdp.audit.tables import audit_records

                insert_new(
                    connection, audit_records, [record_row(frame, log_) for frame in frames_]
                )
                put_place(connection, log_, frames_[-1].after)
                inserted.set()
                assert go_on.wait(30)
            return []

    assert frames
    shipper = Shipper(slow.directory, Halting(engine), slow.recorder)
    thread = threading.Thread(target=shipper.ship)
    thread.start()
    assert inserted.wait(30)
    second = quick.record()
    quick.shipper.ship()
    seen, cursor = read(log, Cursor())
    assert seen == second
    go_on.set()
    thread.join()
    assert read(log, cursor)[0] == first
    engine.dispose()


def test_readers_beside_writers_see_every_record_once(tmp_path: Path, engine: Engine) -> None:
    log = DecisionLog(engine)
    replicas = [Replica(tmp_path, engine, f"r{n}") for n in range(3)]
    written: list[str] = []
    seen: dict[int, list[str]] = {0: [], 1: []}
    done = threading.Event()

    def write(replica: Replica) -> None:
        for _ in range(8):
            written.extend(replica.record(5))
            replica.shipper.ship()

    def follow(reader: int) -> None:
        cursor = Cursor()
        while True:
            last = done.is_set()
            ids, cursor = read(log, cursor, 7)
            seen[reader] += ids
            if last:
                return

    writers = [threading.Thread(target=write, args=(replica,)) for replica in replicas]
    readers = [threading.Thread(target=follow, args=(n,)) for n in seen]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert sorted(seen[0]) == sorted(written)
    assert seen[1] == seen[0], "both see one order"


def test_a_filter_that_finds_nothing_still_moves_on_in_bounded_steps(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_queries, "FOLLOW_POSITIONS_MAX", 10)
    one = Replica(tmp_path, engine, "one")
    one.record(35)
    wanted = one.record(1, permission="course:rare")
    one.shipper.ship()
    log = DecisionLog(engine)
    where = DecisionFilter(permission="course:rare")
    first = log.follow(where, Cursor(), 100)
    assert (first.records, first.more, first.cursor.position) == ([], True, 10)
    assert read(log, Cursor(), 100, where)[0] == wanted


def test_a_cursor_of_another_history_is_refused(tmp_path: Path, engine: Engine) -> None:
    """After a restore the numbers are used twice: going on would leave out the new records."""
    one = Replica(tmp_path, engine, "one")
    log = DecisionLog(engine)
    one.record(2)
    one.shipper.ship()
    _, cursor = read(log, Cursor())
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_order"))
    with pytest.raises(InvalidRequest, match="another history"):
        log.follow(ALL, cursor, 10)
    two = Replica(tmp_path, engine, "two")
    two.record(2)
    two.shipper.ship()
    number_new(engine)
    with pytest.raises(InvalidRequest, match="another history"):
        log.follow(ALL, cursor, 10)
    with pytest.raises(InvalidRequest):
        log.follow(ALL, Cursor(99, 0, cursor.mark), 10)
