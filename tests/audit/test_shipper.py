"""From segments into SQL, once each, on both engines."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text
from structlog.testing import capture_logs

from pdp.audit import (
    DecisionFilter,
    DecisionLog,
    Recorder,
    Shipper,
    SqlDestination,
    verify_segments,
)
from pdp.audit.segments import list_segments, segment_path
from pdp.audit.tables import audit_gaps, audit_records, audit_shipping
from pdp.database.engine import begin_read, begin_write, open_engine
from pdp.errors import DatabaseUnavailable
from pdp.model import Actor
from tests.kit.audit.logs import ORIGIN, frames_of, ids_of, records_of, write_log
from tests.kit.audit.records import decision_record
from tests.kit.audit.shipped import shipped_count, shipped_ids
from tests.kit.waiting import eventually, run


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(tmp_path / "audit", "own")
    recorder.start()
    yield recorder
    recorder.stop()


def test_records_arrive_in_sql_as_they_were_recorded(
    tmp_path: Path, engine: Engine, recorder: Recorder
) -> None:
    shipper = Shipper(tmp_path / "audit", SqlDestination(engine), recorder)
    shipper.start()
    records = [decision_record() for _ in range(20)]
    for record in records:
        run(recorder.record([record]))
    eventually(lambda: shipped_count(engine) == 20)
    shipper.stop()
    log = DecisionLog(engine)
    assert log.list(DecisionFilter(), None, 100).decisions == records[::-1]


def test_a_shipped_row_keeps_its_place_in_the_chain(tmp_path: Path, engine: Engine) -> None:
    write_log(tmp_path, 3)
    frames = frames_of(tmp_path / ORIGIN)
    Shipper(tmp_path, SqlDestination(engine)).ship()
    column = audit_records.c
    with begin_read(engine) as connection:
        rows = connection.execute(
            select(
                column.origin, column.segment, column.position, column.digest, column.record
            ).order_by(column.position)
        ).all()
    assert [(r.origin, r.segment, r.position) for r in rows] == [(ORIGIN, 1, i) for i in range(3)]
    assert [bytes(r.digest) for r in rows] == [frame.after.digest for frame in frames]
    assert [r.record.encode() for r in rows] == [frame.payload for frame in frames]


def test_shipping_again_adds_nothing(tmp_path: Path, engine: Engine) -> None:
    """F7: killed between the commit and the deletion of the segment."""
    ids = write_log(tmp_path, *[1] * 30, segment_bytes=4096)
    saved = {path: path.read_bytes() for _, path in list_segments(tmp_path / ORIGIN)}
    for _ in range(2):
        Shipper(tmp_path, SqlDestination(engine)).ship()
        assert list_segments(tmp_path / ORIGIN) == []
        assert shipped_ids(engine) == ids
        for path, content in saved.items():
            path.write_bytes(content)


def test_two_shippers_at_once_ship_each_record_once(tmp_path: Path, engine: Engine) -> None:
    ids = write_log(tmp_path, *[100] * 20, segment_bytes=1 << 18)
    shippers = [Shipper(tmp_path, SqlDestination(engine)) for _ in range(2)]
    for shipper in shippers:
        shipper.start()
    eventually(lambda: not list_segments(tmp_path / ORIGIN), seconds=30)
    for shipper in shippers:
        shipper.stop()
    assert shipped_ids(engine) == ids


def test_the_log_of_a_process_that_is_gone_is_shipped_by_another(
    tmp_path: Path, engine: Engine, recorder: Recorder
) -> None:
    ids = write_log(tmp_path / "audit", 5)
    with segment_path(tmp_path / "audit" / ORIGIN, 1).open("ab") as file:
        file.write(b"\0\0\1\0torn")
    Shipper(tmp_path / "audit", SqlDestination(engine), recorder).ship()
    assert shipped_ids(engine) == ids
    assert list_segments(tmp_path / "audit" / ORIGIN) == []


def test_the_log_of_a_living_process_is_left_alone(
    tmp_path: Path, engine: Engine, recorder: Recorder
) -> None:
    run(recorder.record([decision_record()]))
    Shipper(tmp_path / "audit", SqlDestination(engine)).ship()
    assert shipped_count(engine) == 0


def test_a_closed_segment_goes_and_the_one_being_written_stays(
    tmp_path: Path, engine: Engine
) -> None:
    recorder = Recorder(tmp_path, ORIGIN, segment_bytes=4096)
    recorder.start()
    shipper = Shipper(tmp_path, SqlDestination(engine), recorder)
    ids = []
    for _ in range(30):
        record = decision_record()
        run(recorder.record([record]))
        ids.append(record.decision_id)
        shipper.ship()
        assert shipped_ids(engine) == ids
        assert len(list_segments(tmp_path / ORIGIN)) <= 2
    recorder.stop()
    assert recorder.synced().place.sequence > 2


def test_nothing_behind_what_is_synced_is_shipped(
    tmp_path: Path, engine: Engine, recorder: Recorder
) -> None:
    """F9: unsynced bytes may vanish; they were never acknowledged."""
    run(recorder.record([decision_record()]))
    other = tmp_path / "other"
    write_log(other, 2)
    first, second = frames_of(other / ORIGIN)
    path = segment_path(recorder.directory, 1)
    with path.open("ab") as file:
        file.write(segment_path(other / ORIGIN, 1).read_bytes()[first.after.byte_offset :])
    shipper = Shipper(tmp_path / "audit", SqlDestination(engine), recorder)
    shipper.ship()
    assert shipped_count(engine) == 1
    assert not list(recorder.directory.glob("*.kept"))
    assert second.payload in path.read_bytes()


def test_shipping_continues_where_another_process_stopped(tmp_path: Path, engine: Engine) -> None:
    recorder = Recorder(tmp_path, ORIGIN)
    recorder.start()
    run(recorder.record([decision_record() for _ in range(10)]))
    Shipper(tmp_path, SqlDestination(engine), recorder).ship()
    run(recorder.record([decision_record() for _ in range(10)]))
    again = Shipper(tmp_path, SqlDestination(engine), recorder)
    again.ship()
    recorder.stop()
    assert shipped_count(engine) == 20
    assert again.counts().shipped == 10


def test_a_database_that_is_out_of_reach_loses_nothing(tmp_path: Path, database_url: str) -> None:
    """F1, F2 for the audit: segments keep the records until the database is back."""
    engine = open_engine(database_url)
    with begin_write(engine) as connection:
        connection.execute(text("ALTER TABLE audit_shipping RENAME TO away"))
    recorder = Recorder(tmp_path / "audit", ORIGIN, segment_bytes=4096)
    recorder.start()
    shipper = Shipper(tmp_path / "audit", SqlDestination(engine), recorder)
    shipper.start()
    records = [decision_record() for _ in range(30)]
    for record in records:
        run(recorder.record([record]))
    eventually(lambda: shipper.counts().failing)
    assert shipped_count(engine) == 0
    assert ids_of(tmp_path / "audit" / ORIGIN) == [r.decision_id for r in records]
    with begin_write(engine) as connection:
        connection.execute(text("ALTER TABLE away RENAME TO audit_shipping"))
    eventually(lambda: shipped_count(engine) == 30)
    eventually(lambda: not shipper.counts().failing)
    recorder.stop()
    shipper.stop()
    assert shipped_ids(engine) == [r.decision_id for r in records]
    engine.dispose()


def test_the_password_of_the_database_is_not_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """SpiceDB CVE-2023-46255, CVE-2026-40091 (the URL with its password in the log)."""
    write_log(tmp_path, 1)
    engine = open_engine("postgresql://someone:canary-password@127.0.0.1:1/canary-database")
    shipper = Shipper(tmp_path, SqlDestination(engine))
    with pytest.raises(DatabaseUnavailable) as caught:
        shipper.ship()
    assert "canary" not in repr(caught.value)
    shipper.start()
    eventually(lambda: shipper.counts().failing)
    shipper.stop()
    output = capfd.readouterr()
    assert "audit_shipping_fails" in output.out + output.err
    assert "canary" not in output.out + output.err


def test_a_stop_ships_what_was_recorded_before(
    tmp_path: Path, engine: Engine, recorder: Recorder
) -> None:
    shipper = Shipper(tmp_path / "audit", SqlDestination(engine), recorder)
    shipper.start()
    run(recorder.record([decision_record() for _ in range(2000)]))
    recorder.stop()
    shipper.stop()
    assert shipped_count(engine) == 2000


def test_a_damaged_segment_is_shipped_as_far_as_it_holds_and_kept(
    tmp_path: Path, engine: Engine
) -> None:
    """Yeti2022, a single flipped bit must cost one record and not the log."""
    ids = write_log(tmp_path, 10)
    ids += write_log(tmp_path, 1)
    path = segment_path(tmp_path / ORIGIN, 1)
    damaged = path.read_bytes().replace(ids[4].encode(), b"f" + ids[4][1:].encode())
    path.write_bytes(damaged)
    shipper = Shipper(tmp_path, SqlDestination(engine))
    for _ in range(2):
        shipper.ship()
        assert shipped_ids(engine) == ids[:4] + ids[5:]
        assert path.read_bytes() == damaged
        assert list(path.parent.glob("*.kept")) == [path.with_suffix(".kept")]
    assert [problem.position for problem in verify_segments(tmp_path).problems] == [4]


def test_a_directory_put_back_from_a_backup_is_noticed_and_nothing_new_is_lost(
    tmp_path: Path, engine: Engine
) -> None:
    """Restore an old backup and append: the database is ahead of the directory."""
    directory = tmp_path / "audit"
    recorder = Recorder(directory, ORIGIN)
    recorder.start()
    run(recorder.record([decision_record()]))
    path = segment_path(directory / ORIGIN, 1)
    backup = path.read_bytes()
    run(recorder.record([decision_record()]))
    Shipper(directory, SqlDestination(engine), recorder).ship()
    recorder.stop()
    path.write_bytes(backup)
    new = write_log(directory, 2)
    segment_path(directory / ORIGIN, 2).rename(tmp_path / "aside")
    shipper = Shipper(directory, SqlDestination(engine))
    with capture_logs() as logs:
        shipper.ship()
        (tmp_path / "aside").rename(segment_path(directory / ORIGIN, 2))
        shipper.ship()
    assert [line["event"] for line in logs].count("audit_log_behind_destination") == 1
    assert shipped_count(engine) == 4
    assert shipped_ids(engine)[2:] == new


def test_an_emptied_directory_starts_a_log_of_its_own(tmp_path: Path, engine: Engine) -> None:
    """F43 across machines: a second log of one name must not pass for the first."""
    first = write_log(tmp_path / "a", 3)
    second = write_log(tmp_path / "b", 5)
    for directory in ("a", "b"):
        Shipper(tmp_path / directory, SqlDestination(engine)).ship()
    assert shipped_ids(engine) == first + second
    with begin_read(engine) as connection:
        logs = connection.execute(select(audit_shipping.c.position)).scalars()
        assert sorted(logs) == [3, 5]


def test_ids_that_sql_cannot_hold_do_not_stop_the_shipping(tmp_path: Path, engine: Engine) -> None:
    """NUL, lone surrogates, 64 KB, quotes."""
    values = ["\0", "a\0b", "\ud800", "x" * 65536, "';DROP TABLE audit_records;--", "%", "\\"]
    records = [decision_record(actor=Actor(value, value, value)) for value in values]
    recorder = Recorder(tmp_path, ORIGIN)
    recorder.start()
    run(recorder.record(records))
    recorder.stop()
    assert records_of(tmp_path / ORIGIN) == records
    Shipper(tmp_path, SqlDestination(engine)).ship()
    log = DecisionLog(engine)
    assert log.list(DecisionFilter(), None, 100).decisions == records[::-1]
    for value, record in zip(values, records, strict=True):
        assert record in log.list(DecisionFilter(user_id=value), None, 100).decisions


def test_gaps_are_shipped_with_their_counts(tmp_path: Path, engine: Engine) -> None:
    """F8: the number of dropped records is known after the segment is deleted."""
    recorder = Recorder(tmp_path, ORIGIN, clock=lambda: 1790000000.5)
    recorder.start()
    release = threading.Event()
    recorder.on_synced(lambda: release.wait(10) and None)  # holds the writer between two batches
    run(recorder.record([decision_record()]))
    for _ in range(5000):
        run(recorder.try_write([decision_record()]))
    release.set()
    eventually(lambda: recorder.counts().waiting == 0)
    recorder.stop()
    dropped = recorder.counts().dropped
    assert dropped == 5000 - 4096
    Shipper(tmp_path, SqlDestination(engine)).ship()
    with begin_read(engine) as connection:
        rows = connection.execute(select(audit_gaps.c.dropped, audit_gaps.c.noticed_at)).all()
    assert [tuple(row) for row in rows] == [(dropped, 1790000000.5)]
    assert shipped_count(engine) == 1 + 4096
