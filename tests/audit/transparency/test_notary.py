"""The notary beside a recorder and a shipper, as a process has them."""

import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from pdp.audit import Recorder, Shipper, SqlDestination
from pdp.audit.segments import list_segments
from pdp.audit.transparency import Notary, covered_by, file_publisher, url_publisher
from pdp.audit.transparency.notes import Signer, open_checkpoint, unverified_checkpoint
from pdp.audit.transparency.publishing import Publisher
from pdp.audit.transparency.trees import StoredTree, stored_trees
from pdp.audit.verify_sql import verify_sql
from pdp.database.engine import open_engine
from pdp.settings.audit_tree import AuditTreeSettings
from tests.kit.audit.logs import ORIGIN, write_log
from tests.kit.audit.records import decision_record
from tests.kit.audit.shipped import shipped_count
from tests.kit.audit.trees import NAME, audit, new_signer, only_tree
from tests.kit.waiting import eventually, run


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return new_signer(tmp_path / "keys")


@contextmanager
def process(
    directory: Path,
    engine: Engine,
    signer: Signer,
    *publishers: Publisher,
    segment_bytes: int = 16 << 20,
    covered: Callable[[str], int] = lambda _: 0,
) -> Iterator[tuple[Recorder, Notary]]:
    """Recorder, shipper and notary, started and stopped as in a process."""
    recorder = Recorder(directory, ORIGIN, segment_bytes=segment_bytes, covered=covered)
    notary = Notary(recorder, NAME, [signer], publishers, checkpoint_seconds=0.05)
    shipper = Shipper(directory, SqlDestination(engine), recorder, notary=notary)
    recorder.start()
    notary.start()
    shipper.start()
    yield recorder, notary
    recorder.stop()
    shipper.stop()
    notary.stop()


def record(recorder: Recorder, count: int) -> None:
    for _ in range(count):
        run(recorder.record([decision_record()]))


def test_all_that_a_process_recorded_is_covered_when_it_has_ended(
    tmp_path: Path, engine: Engine, signer: Signer
) -> None:
    audit_directory = tmp_path / "audit"
    with process(audit_directory, engine, signer, segment_bytes=3_000) as (recorder, _):
        record(recorder, 40)
    assert shipped_count(engine) == 40
    assert len(list_segments(audit_directory / ORIGIN)) == 1
    assert only_tree(audit_directory / ORIGIN).checkpoint.size == 1 + 40
    with process(audit_directory, engine, signer) as (recorder, _):
        record(recorder, 2)
    assert only_tree(audit_directory / ORIGIN).checkpoint.size == 1 + 42
    assert audit(audit_directory, [signer.key]) == 0


def test_no_segment_is_deleted_before_a_checkpoint_covers_it(
    tmp_path: Path, engine: Engine, signer: Signer
) -> None:
    broken = Signer(signer.key, lambda _: bytes(64))  # a key service that is down
    audit_directory = tmp_path / "audit"
    with process(audit_directory, engine, broken, segment_bytes=3_000) as (recorder, notary):
        record(recorder, 40)
        eventually(lambda: shipped_count(engine) == 40)
        problem = notary.gauges()["pdp_audit_tree_failing"][1]
        eventually(lambda: problem() == 1)
    assert len(list_segments(audit_directory / ORIGIN)) > 3
    assert list(stored_trees(audit_directory / ORIGIN)) == []
    with process(audit_directory, engine, signer):
        eventually(lambda: len(list_segments(audit_directory / ORIGIN)) == 1)
    assert only_tree(audit_directory / ORIGIN).checkpoint.size == 1 + 40


def test_records_reach_sql_while_a_key_service_hangs(
    tmp_path: Path, engine: Engine, signer: Signer
) -> None:
    hangs = threading.Event()

    def sign(text: bytes) -> bytes:
        hangs.wait(20)
        return signer.sign(text)

    audit_directory = tmp_path / "audit"
    slow = Signer(signer.key, sign)
    with process(audit_directory, engine, slow, segment_bytes=3_000) as (recorder, _):
        record(recorder, 40)
        eventually(lambda: shipped_count(engine) == 40)
        assert len(list_segments(audit_directory / ORIGIN)) > 3
        hangs.set()
    assert only_tree(audit_directory / ORIGIN).checkpoint.size == 1 + 40


def test_after_its_tree_was_deleted_a_process_begins_another_one(
    tmp_path: Path, engine: Engine, signer: Signer
) -> None:
    audit_directory = tmp_path / "audit"

    def trees() -> list[StoredTree]:
        return list(stored_trees(audit_directory / ORIGIN))

    with process(audit_directory, engine, signer) as (recorder, _):
        record(recorder, 3)
        eventually(lambda: [tree.checkpoint.size for tree in trees()] == [1 + 3])
        deleted = only_tree(audit_directory / ORIGIN)
        shutil.rmtree(deleted.directory)
        record(recorder, 4)
        eventually(lambda: [tree.end for tree in trees()] == [7])
    tree = only_tree(audit_directory / ORIGIN)
    assert tree.checkpoint.origin != deleted.checkpoint.origin
    assert audit(audit_directory, [signer.key]) == 0


def test_the_log_of_an_ended_process_is_covered_before_it_is_deleted(
    tmp_path: Path, engine: Engine, signer: Signer
) -> None:
    audit_directory = tmp_path / "audit"
    write_log(audit_directory, 5, 5)
    (audit_directory / ORIGIN).rename(audit_directory / "ended")
    with process(audit_directory, engine, signer):
        eventually(lambda: list_segments(audit_directory / "ended") == [])
    assert only_tree(audit_directory / "ended").checkpoint.size == 1 + 10


def test_a_log_whose_rows_a_restored_database_has_lost_is_forked_openly(
    tmp_path: Path, sqlite_url: str, signer: Signer
) -> None:
    audit_directory = tmp_path / "audit"
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    engine = open_engine(sqlite_url)
    with process(audit_directory, engine, signer) as (recorder, _):
        record(recorder, 3)
    engine.dispose()
    shutil.copy(path, tmp_path / "backup.db")
    with process(audit_directory, engine, signer) as (recorder, _):
        record(recorder, 4)
    engine.dispose()
    with process(audit_directory, engine, signer) as (recorder, _):
        record(recorder, 1)  # the segment of the process before is shipped and deleted
    engine.dispose()
    lost = only_tree(audit_directory / ORIGIN)
    for leftover in path.parent.glob(path.name + "*"):
        leftover.unlink()
    shutil.copy(tmp_path / "backup.db", path)
    engine = open_engine(sqlite_url)
    with process(audit_directory, engine, signer) as (recorder, _):
        record(recorder, 5)
        eventually(lambda: shipped_count(engine) == 3 + 1 + 5)
    before, after = stored_trees(audit_directory / ORIGIN)
    assert before.checkpoint.origin == lost.checkpoint.origin
    assert (after.genesis.why, after.genesis.previous) == ("restored database", before.note)
    assert after.genesis.first_position >= 8
    reported: list[str] = []
    verify_sql(engine, reported.append, {})
    assert any("4 rows before" in problem for problem in reported)
    engine.dispose()


@pytest.mark.parametrize("published", [True, False])
def test_a_directory_from_a_backup_begins_another_log_and_sql_stays_intact(
    tmp_path: Path, engine: Engine, signer: Signer, published: bool
) -> None:
    directory, elsewhere = tmp_path / "audit", tmp_path / "elsewhere"
    settings = AuditTreeSettings(
        name=NAME, signers=[{"key_file": tmp_path / "keys" / "key.pem"}], files=[elsewhere]
    )
    covered = covered_by(settings, directory / ORIGIN)

    def serve(count: int) -> None:
        with process(directory, engine, signer, file_publisher(elsewhere), covered=covered) as (
            recorder,
            _,
        ):
            record(recorder, count)
            eventually(lambda: recorder.synced() and shipped_count(engine) >= count)

    serve(3)
    shutil.copytree(directory, tmp_path / "backup")
    serve(4)
    lost = only_tree(directory / ORIGIN)
    if published:
        shutil.rmtree(directory)
        shutil.copytree(tmp_path / "backup", directory)
    else:
        for _, path in list_segments(directory / ORIGIN):  # segments alone, and not the tree
            path.unlink()
        for _, path in list_segments(tmp_path / "backup" / ORIGIN):
            shutil.copy(path, directory / ORIGIN)
    serve(5)
    assert shipped_count(engine) == 3 + 4 + 5
    reported: list[str] = []
    verify_sql(engine, reported.append, {})
    assert reported == []
    newest = list(stored_trees(directory / ORIGIN))[-1]
    assert newest.genesis.log_id != lost.genesis.log_id
    assert newest.genesis.previous == lost.note
    assert newest.checkpoint.size == 1 + 5
    assert newest.genesis.why == ("restored directory" if published else "another log")
    # It goes on in the new log.
    serve(1)
    assert list(stored_trees(directory / ORIGIN))[-1].checkpoint.size == 1 + 6


def test_checkpoints_reach_a_file_one_line_each(
    tmp_path: Path, engine: Engine, signer: Signer
) -> None:
    elsewhere = tmp_path / "elsewhere"
    for _ in range(2):
        with process(tmp_path / "audit", engine, signer, file_publisher(elsewhere)) as (
            recorder,
            _,
        ):
            record(recorder, 3)
    [path] = elsewhere.iterdir()
    notes = [json.loads(line)["checkpoint"] for line in path.read_text().splitlines()]
    sizes = [open_checkpoint(note, [signer.key]).size for note in notes]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 1 + 6
    assert audit(tmp_path / "audit", [signer.key], path) == 0


def test_a_line_that_a_crash_cut_off_does_not_hide_the_last_checkpoint(
    tmp_path: Path, engine: Engine, signer: Signer
) -> None:
    publisher = file_publisher(tmp_path / "elsewhere")
    with process(tmp_path / "audit", engine, signer, publisher) as (recorder, _):
        record(recorder, 3)
    [path] = (tmp_path / "elsewhere").iterdir()
    newest = only_tree(tmp_path / "audit" / ORIGIN)
    with path.open("a") as file:
        file.write('{"checkpoint": "pdp')
    assert publisher.last(newest.checkpoint.origin) == newest.note
    again = file_publisher(tmp_path / "elsewhere")
    with process(tmp_path / "audit", engine, signer, again) as (recorder, _):
        record(recorder, 2)
    assert audit(tmp_path / "audit", [signer.key], path) == 0
    assert json.loads(path.read_text().splitlines()[-1])["checkpoint"].split("\n")[1] == "6"


@contextmanager
def receiver(answers: Callable[[int], int]) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that answers the n-th request with a status, and the notes it accepted."""
    accepted: list[str] = []
    count = 0

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal count
            count += 1
            note = self.rfile.read(int(self.headers["content-length"])).decode()
            status = answers(count)
            if status == 200:
                accepted.append(note)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/checkpoints", accepted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_destination_that_fails_gets_the_newest_checkpoint_once_it_is_back(
    tmp_path: Path, engine: Engine, signer: Signer
) -> None:
    with (
        receiver(lambda count: 503 if count <= 2 else 200) as (url, accepted),
        process(tmp_path / "audit", engine, signer, url_publisher(url)) as (recorder, notary),
    ):
        record(recorder, 3)
        waiting = notary.gauges()["pdp_audit_checkpoints_waiting"][1]
        eventually(lambda: waiting() == 1)
        eventually(lambda: accepted, seconds=30)
    assert {open_checkpoint(note, [signer.key]).size for note in accepted} <= {2, 3, 4}
    assert unverified_checkpoint(accepted[-1]).size == 4


def test_a_destination_that_never_answers_holds_up_nothing(
    tmp_path: Path, engine: Engine, signer: Signer
) -> None:
    block = threading.Event()
    slow = Publisher("slow", lambda _: block.wait(60) and None)
    origin = tmp_path / "audit" / ORIGIN
    with process(tmp_path / "audit", engine, signer, slow, segment_bytes=3_000) as (recorder, _):
        record(recorder, 3)
        eventually(slow.waiting)
        record(recorder, 37)
        eventually(lambda: [tree.checkpoint.size for tree in stored_trees(origin)] == [41])
        # A signed checkpoint is enough to delete segments: the disk does not fill.
        eventually(lambda: len(list_segments(origin)) == 1)
        assert slow.waiting() == 1
        block.set()


@pytest.mark.parametrize(
    "url", ["http://example.com/", "ftp://127.0.0.1/", "https://user@example.com/", "evidence"]
)
def test_checkpoints_are_sent_to_safe_addresses_only(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        AuditTreeSettings(name=NAME, signers=[{"key_file": "k"}], urls=[url])


@pytest.mark.parametrize(
    "signer",
    [
        {},
        {"command": ["sign"]},
        {"public_key_file": "k"},
        {"key_file": "k", "command": ["s"], "public_key_file": "p"},
    ],
)
def test_a_signer_is_a_file_or_a_command_with_its_public_key(signer: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="key_file"):
        AuditTreeSettings(name=NAME, signers=[signer])
