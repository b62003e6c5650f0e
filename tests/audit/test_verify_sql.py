"""Tampering with the decision log in SQL is found, and named."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from pdp.audit import Shipper, SqlDestination, shipped_places, verify_segments, verify_sql
from pdp.audit.recorder import Recorder
from pdp.audit.segments import Log, Place, next_frame
from pdp.database.engine import begin_read, begin_write
from tests.kit.audit.logs import ORIGIN, write_log
from tests.kit.audit.records import decision_record
from tests.kit.waiting import run


def problems(engine: Engine, directory: Path | None = None) -> list[str]:
    """The lines about SQL and about the segments that are left, without the name of the log."""
    found: list[str] = []
    on_disk = None if directory is None else verify_segments(directory, shipped_places(engine))
    if on_disk is not None:
        found += [problem.what for problem in on_disk.problems]
    reported: list[str] = []
    report = verify_sql(engine, reported.append, {} if on_disk is None else on_disk.headers)
    assert report.problems == len(reported)
    return found + [problem.partition(": ")[2] for problem in reported]


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 32 records in several segments, one of them empty."""
    directory = tmp_path_factory.mktemp("segments") / "audit"
    write_log(directory, 10, 10, 10, segment_bytes=4096)
    write_log(directory)  # a process that recorded nothing
    write_log(directory, 2)
    return directory


@pytest.fixture
def log(engine: Engine, segments: Path, tmp_path: Path) -> Engine:
    """SQL with that log."""
    directory = tmp_path / "audit"
    shutil.copytree(segments, directory)
    Shipper(directory, SqlDestination(engine)).ship()
    return engine


def execute(engine: Engine, *statements: str) -> None:
    with begin_write(engine) as connection:
        for statement in statements:
            connection.execute(text(statement))


def decision_id(engine: Engine, position: int) -> str:
    query = text("SELECT decision_id FROM audit_records WHERE position = :p")
    with begin_read(engine) as connection:
        return str(connection.execute(query, {"p": position}).scalar_one())


FORGED = "replace(record, 'DENY', 'ALLOW')"
COPY = "'{new}', decided_at, effect, reason, permission, caller, user_id, organization_id"
COPY += ", resource_type, resource_id, record, reported_by, origin, log_id, segment"
INTO = COPY.replace("'{new}'", "decision_id") + ", position, digest"


def test_a_log_in_several_segments_holds_and_is_counted(log: Engine, tmp_path: Path) -> None:
    """The control of the tests below."""
    assert problems(log) == []
    assert problems(log, tmp_path / "audit") == []
    report = verify_sql(log, print, {})
    assert (report.logs, report.records, report.gaps, report.unlinked) == (1, 32, 0, 0)


@pytest.mark.parametrize("position", [0, 1, 14, 31])
def test_an_edited_row_is_found_and_named(log: Engine, position: int) -> None:
    name = f"row {position} (decision {decision_id(log, position)})"
    execute(log, f"UPDATE audit_records SET record = {FORGED} WHERE position = {position}")
    said = problems(log)
    assert f"{name} is not what was shipped: edited, swapped or inserted" in said
    assert all(name in problem for problem in said)


@pytest.mark.parametrize(
    "column", ["effect", "user_id", "caller", "reason", "permission", "grant_id"]
)
def test_an_edited_column_that_hides_a_row_from_a_filter_is_found(log: Engine, column: str) -> None:
    name = f"row 7 (decision {decision_id(log, 7)})"
    execute(log, f"UPDATE audit_records SET {column} = 'x' WHERE position = 7")
    assert problems(log) == [f"{name}: not as its record says: {column}"]


def test_deleted_rows_are_found_and_counted(log: Engine) -> None:
    name = f"row 9 (decision {decision_id(log, 9)})"
    execute(log, "DELETE FROM audit_records WHERE position IN (0, 8)")
    first = f"row 1 (decision {decision_id(log, 1)})"
    assert problems(log) == [
        f"1 row before {first} is missing: deleted, or never shipped",
        f"1 row before {name} is missing: deleted, or never shipped",
    ]
    report = verify_sql(log, lambda _: None, {})
    assert report.unlinked >= 2


def test_rows_deleted_from_the_end_are_found(log: Engine) -> None:
    execute(log, "DELETE FROM audit_records WHERE position >= 29")
    assert problems(log) == ["the last 3 rows of it are missing"]
    execute(log, "DELETE FROM audit_records")
    assert problems(log) == ["all 32 rows are missing"]


def test_swapped_rows_are_found(log: Engine) -> None:
    names = [f"row {p} (decision {decision_id(log, p)})" for p in (4, 6)]
    execute(
        log,
        "UPDATE audit_records SET position = -1 WHERE position = 4",
        "UPDATE audit_records SET position = 4 WHERE position = 6",
        "UPDATE audit_records SET position = 6 WHERE position = -1",
    )
    said = problems(log)
    swapped = [names[0].replace("row 4", "row 6"), names[1].replace("row 6", "row 4")]
    for name in swapped:
        assert any(problem.startswith(name) for problem in said), (name, said)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("position", "is one too many at its place: it was inserted or copied"),
        ("position + 100", "does not end where shipping ended: its end was rewritten or added to"),
    ],
)
def test_an_inserted_row_is_found(log: Engine, place: str, said: str) -> None:
    new = "01900000-0000-7000-8000-000000000000"
    execute(
        log,
        f"INSERT INTO audit_records ({INTO}) SELECT {COPY.format(new=new)}, {place}, digest "
        "FROM audit_records WHERE position = 31",
    )
    assert any(problem.endswith(said) for problem in problems(log))


def test_a_log_that_nobody_shipped_is_found(log: Engine) -> None:
    execute(log, "DELETE FROM audit_shipping")
    assert problems(log) == ["is none that was shipped: its rows were inserted"]


def test_an_impossible_segment_is_found_and_takes_no_time(log: Engine) -> None:
    execute(log, f"UPDATE audit_records SET segment = {2**62} WHERE position = 31")
    assert any("names segment" in problem for problem in problems(log))


def test_an_attacker_who_recomputes_all_digests_is_found_if_a_segment_is_left(
    engine: Engine, tmp_path: Path
) -> None:
    """The chain is not signed: in SQL alone it can be written again as a whole."""
    directory = tmp_path / "audit"
    recorder = Recorder(directory, ORIGIN, segment_bytes=4096)
    recorder.start()
    for _ in range(4):
        run(recorder.record([decision_record() for _ in range(5)]))
    shipper = Shipper(directory, SqlDestination(engine), recorder)
    shipper.ship()  # the segment that is being written stays
    assert problems(engine, directory) == []
    rewrite_everything(engine)
    assert problems(engine) == [], "SQL alone does not show it"
    said = problems(engine, directory)
    recorder.stop()
    assert any(
        "rewritten" in problem or "another one than was shipped" in problem for problem in said
    ), said


def rewrite_everything(engine: Engine) -> None:
    """Makes each denial an allow and computes digests and places again."""
    from pdp.audit.segments import Header, encode_header

    with begin_write(engine) as connection:
        rows = connection.execute(text("SELECT * FROM audit_records ORDER BY position")).mappings()
        place = Place(0, 0, 0, bytes(32))
        for row in rows.all():
            log = Log(row["origin"], row["log_id"])
            while place.sequence < row["segment"]:
                header = Header(
                    *log, place.sequence + 1, place.position, place.digest, place.byte_offset
                )
                content, digest = encode_header(header)
                place = Place(place.sequence + 1, len(content), place.position, digest)
            forged = row["record"].replace('"effect":"DENY"', '"effect":"ALLOW"')
            place = next_frame(place, b"R", forged.encode()).after
            connection.execute(
                text(
                    "UPDATE audit_records SET record = :r, effect = 'ALLOW', digest = :d "
                    "WHERE decision_id = :i"
                ),
                {"r": forged, "d": place.digest, "i": row["decision_id"]},
            )
        connection.execute(
            text("UPDATE audit_shipping SET digest = :d, byte_offset = :b"),
            {"d": place.digest, "b": place.byte_offset},
        )


def test_records_cut_from_the_end_of_a_segment_that_is_left_are_found(
    engine: Engine, tmp_path: Path
) -> None:
    recorder = Recorder(tmp_path / "audit", ORIGIN)
    recorder.start()
    run(recorder.record([decision_record() for _ in range(5)]))
    Shipper(tmp_path / "audit", SqlDestination(engine), recorder).ship()
    recorder.stop()
    [path] = (tmp_path / "audit" / ORIGIN).glob("*.segment")
    assert problems(engine, tmp_path / "audit") == []
    frames = path.read_bytes()
    path.write_bytes(frames[: len(frames) - len(frames) // 6])
    said = problems(engine, tmp_path / "audit")
    assert said
    assert "cut off" in said[0] or "ends before" in said[0]


def test_gaps_are_part_of_the_chain(engine: Engine, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "audit", ORIGIN)
    recorder.start()
    recorder._queue.dropped += 3
    recorder._queue.mark_unwritten([], 3)
    run(recorder.record([decision_record()]))
    recorder.stop()
    Shipper(tmp_path / "audit", SqlDestination(engine)).ship()
    report = verify_sql(engine, print, {})
    assert (report.records, report.gaps, report.problems) == (1, 1, 0)
    execute(engine, "UPDATE audit_gaps SET dropped = 1")
    assert any("(a gap) is not what was shipped" in problem for problem in problems(engine))


def test_memory_does_not_grow_with_the_log(engine: Engine, tmp_path: Path) -> None:
    import tracemalloc

    write_log(tmp_path / "audit", *[200] * 10)
    Shipper(tmp_path / "audit", SqlDestination(engine)).ship()

    verify_sql(engine, print, {})
    tracemalloc.start()
    report = verify_sql(engine, print, {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.records == 2_000
    size = 2_000 * 600
    assert peak < size * 3, "a page of rows at a time"
