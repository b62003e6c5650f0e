"""Other programs move, delete or change the files of a log while it is written."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from pdp.audit import Recorder, Shipper, SqlDestination, verify_segments
from pdp.audit.locks import LOCK_NAME
from pdp.audit.segments import list_segments, segment_path
from pdp.database.engine import begin_write, open_engine
from pdp.errors import AuditUnavailable, DatabaseUnavailable
from tests.kit.audit.logs import ORIGIN, gaps_of, ids_of
from tests.kit.audit.records import decision_record
from tests.kit.audit.shipped import shipped_ids
from tests.kit.waiting import eventually, run


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    # It is not about how fast this machine is, nor about what is noticed while nothing is written.
    monkeypatch.setattr("pdp.audit.recorder.WAIT_SECONDS_MAX", 30.0)
    monkeypatch.setattr("pdp.audit.recorder.WATCH_SECONDS", 3600.0)
    recorder = Recorder(tmp_path / "audit", ORIGIN)
    recorder.start()
    yield recorder
    recorder.stop()


@pytest.fixture
def sqlite_engine(sqlite_url: str) -> Iterator[Engine]:
    engine = open_engine(sqlite_url)
    yield engine
    engine.dispose()


def deny(recorder: Recorder, times: int = 1) -> list[str]:
    return [id_ for _ in range(times) for id_ in run(recorder.record([decision_record()]))]


def moved(path: Path) -> None:
    path.rename(path.parent / "rotated")


def moved_to_another_directory(path: Path) -> None:
    path.rename(path.parents[2] / "rotated")


def deleted(path: Path) -> None:
    path.unlink()


def replaced_by_an_empty_file(path: Path) -> None:
    moved(path)
    path.touch()


def replaced_by_a_copy_that_says_otherwise(path: Path) -> None:
    content = path.read_bytes().replace(b"course:edit", b"course:read")
    path.unlink()
    path.write_bytes(content)


def replaced_by_a_link_to_it(path: Path) -> None:
    moved(path)
    path.symlink_to(path.parent / "rotated")


def the_origin_deleted(path: Path) -> None:
    shutil.rmtree(path.parent)


def the_directory_deleted(path: Path) -> None:
    shutil.rmtree(path.parents[1])


def the_directory_moved(path: Path) -> None:
    path.parents[1].rename(path.parents[2] / "elsewhere")


LOST = (
    moved,
    moved_to_another_directory,
    deleted,
    replaced_by_an_empty_file,
    replaced_by_a_copy_that_says_otherwise,
    replaced_by_a_link_to_it,
    the_origin_deleted,
    the_directory_deleted,
    the_directory_moved,
)


@pytest.mark.parametrize("lose", LOST, ids=lambda lose: lose.__name__)
def test_a_segment_that_is_lost_is_put_back_and_every_answered_denial_is_in_the_log(
    tmp_path: Path,
    engine: Engine,
    recorder: Recorder,
    capfd: pytest.CaptureFixture[str],
    lose: Callable[[Path], None],
) -> None:
    acked = deny(recorder, 3)
    lose(segment_path(recorder.directory, 1))
    acked += deny(recorder, 3)
    assert ids_of(recorder.directory) == acked
    assert 1 <= recorder.counts().failures <= 2  # the segment, and the lock with it
    assert recorder.ready()
    assert verify_segments(tmp_path / "audit").whole
    assert (recorder.directory / LOCK_NAME).is_file()
    Shipper(tmp_path / "audit", SqlDestination(engine), recorder).ship()
    assert shipped_ids(engine) == acked
    output = capfd.readouterr()
    assert (output.out + output.err).count("audit_segment_lost") == 1


def test_what_has_the_name_of_a_lost_segment_is_set_aside(
    tmp_path: Path, recorder: Recorder
) -> None:
    deny(recorder)
    replaced_by_a_copy_that_says_otherwise(segment_path(recorder.directory, 1))
    deny(recorder)
    assert b"course:read" in (recorder.directory / "0000000001.foreign").read_bytes()


def test_a_lost_segment_is_put_back_though_nothing_more_is_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.audit.recorder.WATCH_SECONDS", 0.02)
    recorder = Recorder(tmp_path, ORIGIN)
    recorder.start()
    acked = deny(recorder, 2)
    deleted(segment_path(recorder.directory, 1))
    eventually(lambda: list_segments(recorder.directory) != [])
    assert ids_of(recorder.directory) == acked
    (recorder.directory / LOCK_NAME).unlink()
    eventually((recorder.directory / LOCK_NAME).is_file)
    recorder.stop()


def test_a_segment_that_is_deleted_is_put_back_at_the_end_of_the_process(
    tmp_path: Path, recorder: Recorder
) -> None:
    acked = deny(recorder, 2)
    deleted(segment_path(recorder.directory, 1))
    recorder.stop()
    assert ids_of(recorder.directory) == acked


def test_while_a_lost_segment_cannot_be_put_back_no_denial_is_answered_and_then_all_is_there(
    tmp_path: Path, recorder: Recorder
) -> None:
    acked = deny(recorder, 3)
    shutil.rmtree(tmp_path / "audit")
    (tmp_path / "audit").write_text("in the way")
    for _ in range(3):
        with pytest.raises(AuditUnavailable):
            deny(recorder)
    assert not recorder.ready()
    (tmp_path / "audit").unlink()
    eventually(recorder.ready)
    acked += deny(recorder)
    assert ids_of(recorder.directory) == acked
    assert verify_segments(tmp_path / "audit").whole


@pytest.mark.parametrize(
    "left", ["nothing", "half of the header", "one record and a half", "all but a byte"]
)
@pytest.mark.parametrize("shipped", [True, False])
def test_after_a_truncation_in_place_records_are_shipped_and_chains_hold(
    tmp_path: Path, sqlite_engine: Engine, recorder: Recorder, left: str, shipped: bool
) -> None:
    """logrotate's copytruncate. The bytes are lost: unshipped frames become a gap."""
    engine = sqlite_engine
    shipper = Shipper(tmp_path / "audit", SqlDestination(engine), recorder)
    path = segment_path(recorder.directory, 1)
    header = path.stat().st_size
    before = deny(recorder)
    record = path.stat().st_size - header
    before += deny(recorder, 3)
    if shipped:
        shipper.ship()
    size = {
        "nothing": 0,
        "half of the header": header // 2,
        "one record and a half": header + record * 3 // 2,
        "all but a byte": path.stat().st_size - 1,
    }[left]
    os.truncate(path, size)
    with pytest.raises(AuditUnavailable):
        deny(recorder)
    assert recorder.counts().failures >= 1
    after = deny(recorder, 2)
    assert verify_segments(tmp_path / "audit").whole
    shipper.ship()
    kept = {"nothing": 0, "half of the header": 0, "one record and a half": 1}.get(left, 3)
    expected = before if shipped else before[:kept]
    assert shipped_ids(engine) == expected + after
    lost = 0 if shipped else 4 - kept
    gaps = [f'{{"dropped":{lost},'.encode()] if lost else []
    assert [gap[: len(gaps[0])] for gap in gaps_of(recorder.directory)] == gaps
    assert not list(recorder.directory.glob("*.kept"))
    assert len(list_segments(recorder.directory)) == 1


def test_what_others_add_to_a_segment_is_cut_off(tmp_path: Path, recorder: Recorder) -> None:
    acked = deny(recorder, 2)
    with segment_path(recorder.directory, 1).open("ab") as file:
        file.write(b"something else")
    acked += deny(recorder, 2)
    assert ids_of(recorder.directory) == acked
    assert verify_segments(tmp_path / "audit").whole


def test_segments_that_are_deleted_before_they_are_shipped_become_a_gap(
    tmp_path: Path, sqlite_engine: Engine
) -> None:
    recorder = Recorder(tmp_path / "audit", ORIGIN, segment_bytes=1000)
    recorder.start()
    shipper = Shipper(tmp_path / "audit", SqlDestination(sqlite_engine), recorder)
    acked = deny(recorder, 4)
    shipper.ship()
    acked += deny(recorder, 6)
    for _, path in list_segments(recorder.directory)[:-1]:
        path.unlink()
    shipper.ship()
    recorder.stop()
    shipper.ship()
    lost = set(acked) - set(shipped_ids(sqlite_engine))
    assert lost
    with begin_write(sqlite_engine) as connection:
        dropped = connection.execute(text("SELECT sum(dropped) FROM audit_gaps")).scalar_one()
    assert dropped == len(lost)
    assert verify_segments(tmp_path / "audit").whole


def test_while_a_process_lives_no_other_takes_its_log_though_its_lock_was_deleted(
    tmp_path: Path, sqlite_engine: Engine, recorder: Recorder
) -> None:
    """A cleaner of temporary files deletes old files, and the lock file is never written."""
    acked = deny(recorder, 2)
    (recorder.directory / LOCK_NAME).unlink()
    with pytest.raises(AuditUnavailable, match="another process records as 'one'"):
        Recorder(tmp_path / "audit", ORIGIN).start()
    Shipper(tmp_path / "audit", SqlDestination(sqlite_engine)).ship()
    assert shipped_ids(sqlite_engine) == []
    acked += deny(recorder, 2)
    assert ids_of(recorder.directory) == acked


# --- a disk that is full -------------------------------------------------------------------------


def locked(engine: Engine) -> None:
    with begin_write(engine) as connection:
        connection.execute(text("ALTER TABLE audit_shipping RENAME TO away"))


def unlocked(engine: Engine) -> None:
    with begin_write(engine) as connection:
        connection.execute(text("ALTER TABLE away RENAME TO audit_shipping"))


def test_once_the_last_segment_is_shipped_and_closed_it_makes_room(
    tmp_path: Path,
    sqlite_engine: Engine,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A volume smaller than a segment, filled while the database was away: what is on it must go
    before a new segment can be made."""
    shipper = Shipper(tmp_path / "audit", SqlDestination(sqlite_engine), recorder)
    acked = deny(recorder, 3)
    locked(sqlite_engine)

    def full(*_: object) -> None:
        if list_segments(recorder.directory):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("pdp.audit.writer.os.fdatasync", full)
    monkeypatch.setattr("pdp.audit.segments.write_all", full)
    for _ in range(20):
        with pytest.raises(AuditUnavailable):
            deny(recorder)
    assert not recorder.ready()
    with pytest.raises(DatabaseUnavailable):
        shipper.ship()
    unlocked(sqlite_engine)
    shipper.ship()
    assert list_segments(recorder.directory) == []
    monkeypatch.undo()
    eventually(recorder.ready)
    acked += deny(recorder, 2)
    shipper.ship()
    assert shipped_ids(sqlite_engine) == acked
    output = capfd.readouterr()
    errors = [line for line in (output.out + output.err).splitlines() if "errno=28" in line]
    assert len(errors) == 2  # that a write failed, and that no segment could be made
