"""The recorder within its process: bounds, gaps, locks, secrets."""

import hashlib
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pdp.audit import Recorder, verify_segments
from pdp.audit.segments import list_segments, segment_path
from pdp.audit.write_queue import QUEUE_RECORDS_MAX
from pdp.errors import AuditUnavailable
from pdp.model import Actor
from tests.kit.audit.logs import ORIGIN, gaps_of, ids_of, write_log
from tests.kit.audit.records import decision_record
from tests.kit.sqlite import make_sqlite
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually, run


class Gate:
    """Holds the writer behind a sync until it is opened."""

    def __init__(self, recorder: Recorder) -> None:
        self._open = threading.Event()
        self.reached = threading.Event()
        recorder.on_synced(self._hold)

    def _hold(self) -> None:
        self.reached.set()
        self._open.wait(20)

    def open(self) -> None:
        self._open.set()


def held(directory: Path) -> tuple[Recorder, Gate]:
    """A recorder whose writer is busy."""
    recorder = Recorder(directory, ORIGIN, clock=lambda: 1790000000.0)
    recorder.start()
    gate = Gate(recorder)
    run(recorder.record([decision_record()]))
    assert gate.reached.wait(10)
    return recorder, gate


def test_records_are_readable_when_record_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 8: a denial that was answered is in the log."""
    # It is not about how fast this machine is.
    monkeypatch.setattr("pdp.audit.recorder.WAIT_SECONDS_MAX", 30.0)
    recorder = Recorder(tmp_path, ORIGIN)
    recorder.start()
    ids: list[str] = []
    for size in (1, 2, 255, 256, 257, 1000, 5000):
        records = [decision_record() for _ in range(size)]
        run(recorder.record(records))
        ids += [record.decision_id for record in records]
        assert ids_of(tmp_path / ORIGIN) == ids
    run(recorder.record([]))
    recorder.stop()
    assert recorder.counts().recorded == len(ids)


def test_many_threads_are_each_acknowledged_for_their_own(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, ORIGIN, segment_bytes=50_000)
    recorder.start()
    acked: list[str] = []

    def work() -> None:
        for _ in range(50):
            record = decision_record()
            run(recorder.record([record]))
            acked.append(record.decision_id)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.stop()
    ids = ids_of(tmp_path / ORIGIN)
    assert len(ids) == len(set(ids)) == 800
    assert set(acked) == set(ids)
    assert verify_segments(tmp_path).whole


def test_a_second_recorder_of_an_origin_does_not_start(tmp_path: Path) -> None:
    """F43: two replicas with the same audit origin."""
    first = Recorder(tmp_path, ORIGIN)
    first.start()
    second = Recorder(tmp_path, ORIGIN)
    with pytest.raises(AuditUnavailable, match="another process records as 'one'"):
        second.start()
    with pytest.raises(AuditUnavailable):
        run(second.record([decision_record()]))
    other = Recorder(tmp_path, "two")
    other.start()
    other.stop()
    run(first.record([decision_record()]))
    first.stop()
    second.start()
    run(second.record([decision_record()]))
    second.stop()
    assert len(ids_of(tmp_path / ORIGIN)) == 2


def test_a_full_queue_refuses_in_time_and_stays_bounded(tmp_path: Path) -> None:
    """F10: never more than 4,096 records wait."""
    recorder, gate = held(tmp_path)
    for _ in range(2 * QUEUE_RECORDS_MAX):
        run(recorder.try_write([decision_record()]))
    assert recorder.counts().waiting == QUEUE_RECORDS_MAX
    watch = Stopwatch()
    with pytest.raises(AuditUnavailable, match="too many"):
        run(recorder.record([decision_record()]))
    assert watch.seconds < 2
    gate.open()
    eventually(lambda: recorder.counts().waiting == 0)
    run(recorder.record([decision_record()]))
    recorder.stop()


def test_a_batch_larger_than_the_queue_is_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, ORIGIN)
    recorder.start()
    run(recorder.record([decision_record() for _ in range(QUEUE_RECORDS_MAX + 1)]))
    recorder.stop()
    assert len(ids_of(tmp_path / ORIGIN)) == QUEUE_RECORDS_MAX + 1


def test_a_hanging_sink_refuses_in_time_and_what_gave_up_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F10: the deadline is 250 ms, and calls that timed out leave nothing in the queue."""
    monkeypatch.setattr("pdp.audit.recorder.WAIT_SECONDS_MAX", 0.25)
    recorder, gate = held(tmp_path)
    refused = decision_record()
    watch = Stopwatch()
    with pytest.raises(AuditUnavailable, match="in time"):
        run(recorder.record([refused]))
    assert watch.elapsed > 0.2
    assert watch.seconds < 2
    assert recorder.counts().waiting == 0
    gate.open()
    run(recorder.record([decision_record()]))
    recorder.stop()
    assert refused.decision_id not in ids_of(tmp_path / ORIGIN)


def test_dropped_allows_are_in_the_log_as_a_gap_with_a_count(tmp_path: Path) -> None:
    """F8: the log counts dropped records."""
    recorder, gate = held(tmp_path)
    for _ in range(QUEUE_RECORDS_MAX // 100 + 3):
        run(recorder.try_write([decision_record() for _ in range(100)]))
    gate.open()
    eventually(lambda: recorder.counts().waiting == 0)
    recorder.stop()
    dropped = recorder.counts().dropped
    assert dropped == 300
    assert gaps_of(tmp_path / ORIGIN) == [b'{"dropped":300,"noticed_at":1790000000.0}']
    report = verify_segments(tmp_path)
    assert report.whole
    assert (report.records, report.dropped) == (1 + QUEUE_RECORDS_MAX // 100 * 100, 300)


def test_after_a_stop_nothing_is_taken_and_everything_taken_is_written(tmp_path: Path) -> None:
    recorder, gate = held(tmp_path)
    for _ in range(1000):
        run(recorder.try_write([decision_record()]))
    gate.open()
    recorder.stop()
    assert len(ids_of(tmp_path / ORIGIN)) == 1001
    assert not recorder.ready()
    with pytest.raises(AuditUnavailable, match="closed"):
        run(recorder.record([decision_record()]))
    with pytest.raises(AuditUnavailable, match="closed"):
        run(recorder.try_write([decision_record()]))


def test_a_record_that_cannot_be_written_down_is_unavailable_not_silent(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, ORIGIN)
    recorder.start()
    with pytest.raises(AuditUnavailable):
        run(recorder.record([decision_record(decided_at=float("nan"))]))
    with pytest.raises(AuditUnavailable):
        run(recorder.record([decision_record(permission="x" * (1 << 20))]))
    run(recorder.record([decision_record()]))
    recorder.stop()


def test_a_directory_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditUnavailable, match="cannot be used"):
        Recorder(tmp_path / "file", ORIGIN).start()


def test_segments_are_for_their_owner_only(tmp_path: Path) -> None:
    write_log(tmp_path, 1)
    assert segment_path(tmp_path / ORIGIN, 1).stat().st_mode & 0o077 == 0
    assert (tmp_path / ORIGIN).stat().st_mode & 0o077 == 0


def test_a_token_cannot_reach_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """GRPC-Go GHSA-xr7q. A record has no place for a token: only its fingerprint."""
    canary = "eyJhbGciOiJSUzI1NiJ9.canary-token-canary.signature"
    fingerprint = hashlib.sha256(canary.encode()).hexdigest()[:16]
    recorder = Recorder(tmp_path, ORIGIN)
    recorder.start()
    for _ in range(100):
        run(recorder.record([decision_record(token_fingerprint=fingerprint)]))
    with pytest.raises(AuditUnavailable) as caught:
        run(recorder.record([decision_record(permission=canary * 30_000)]))
    recorder.stop()
    output = capfd.readouterr()
    content = segment_path(tmp_path / ORIGIN, 1).read_bytes().decode("latin-1")
    assert fingerprint in content
    for place in (content, output.out, output.err, repr(caught.value), str(caught.value)):
        assert "canary" not in place


def test_ids_that_imitate_records_stay_one_record(tmp_path: Path) -> None:
    """Envoy-gateway CVE-2025-25294."""
    value = '\n{"decision_id":"x","effect":"ALLOW"}\r\n\x1b[2J\0\u2028'
    recorder = Recorder(tmp_path, ORIGIN)
    recorder.start()
    run(recorder.record([decision_record(actor=Actor(value, value), rule_id=value)]))
    recorder.stop()
    report = verify_segments(tmp_path)
    assert report.whole
    assert report.records == 1
    text = segment_path(tmp_path / ORIGIN, 1).read_bytes().partition(b'{"actor"')[2]
    assert b"\x1b" not in text


FULL_DISK = """
import asyncio, subprocess, sys, time
from pathlib import Path
directory = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(directory)], check=True)
from pdp.audit import Recorder, verify_segments
from pdp.errors import AuditUnavailable
from tests.kit.audit.logs import gaps_of, ids_of
from tests.kit.audit.records import decision_record
from tests.kit.stall import Stopwatch
ballast = directory / "ballast"
ballast.write_bytes(bytes(32768))
recorder = Recorder(directory / "audit", "one")
recorder.start()
acked = []
refused = False
while not refused:
    record = decision_record()
    try:
        asyncio.run(recorder.record([record]))
        acked.append(record.decision_id)
    except AuditUnavailable:
        refused = True
deadline = time.monotonic() + 10
while recorder.ready() and time.monotonic() < deadline:
    try:
        asyncio.run(recorder.record([decision_record() for _ in range(20)]))
    except AuditUnavailable:
        pass
assert not recorder.ready()
asyncio.run(recorder.try_write([decision_record() for _ in range(50)]))
while recorder.counts().waiting:
    time.sleep(0.01)
ballast.unlink()
watch = Stopwatch()
while True:
    record = decision_record()
    try:
        asyncio.run(recorder.record([record]))
        break
    except AuditUnavailable:
        assert watch.seconds < 1, "not used again within a second"
acked.append(record.decision_id)
recorder.stop()
assert set(acked) <= set(ids_of(directory / "audit" / "one"))
assert gaps_of(directory / "audit" / "one") == [
    b'{"dropped":50,' + gaps_of(directory / "audit" / "one")[0].partition(b",")[2]
]
assert verify_segments(directory / "audit").whole
print("held")
"""


HEALING_DISK = """
import asyncio, subprocess, sys, time
from pathlib import Path
directory = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(directory)], check=True)
from sqlalchemy import text
from pdp.audit import Recorder, Shipper, SqlDestination, verify_segments
from pdp.audit.segments import list_segments
from pdp.errors import AuditUnavailable
from pdp.database.engine import begin_write, open_engine
from tests.kit.audit.shipped import shipped_ids
from tests.kit.audit.records import decision_record
engine = open_engine(f"sqlite:///{sys.argv[2]}")
acked = []

def deny(recorder):
    record = decision_record()
    asyncio.run(recorder.record([record]))
    acked.append(record.decision_id)

def fill(recorder):
    with begin_write(engine) as connection:
        connection.execute(text("ALTER TABLE audit_shipping RENAME TO away"))
    deadline = time.monotonic() + 20
    while recorder.ready():
        assert time.monotonic() < deadline, "the disk does not become full"
        try:
            deny(recorder)
        except AuditUnavailable:
            pass

def heal(recorder):
    with begin_write(engine) as connection:
        connection.execute(text("ALTER TABLE away RENAME TO audit_shipping"))
    deadline = time.monotonic() + 20
    while not recorder.ready():
        assert time.monotonic() < deadline, "not used again"
        time.sleep(0.01)
    deny(recorder)

def started():
    recorder = Recorder(directory, "one")
    recorder.start()
    shipper = Shipper(directory, SqlDestination(engine), recorder)
    shipper.start()
    return recorder, shipper

recorder, shipper = started()
deny(recorder)
fill(recorder)
heal(recorder)
fill(recorder)
recorder.stop()
shipper.stop()
# A process that starts while the disk is full makes room, too.
recorder, shipper = started()
assert not recorder.ready()
heal(recorder)
recorder.stop()
shipper.stop()
assert set(acked) <= set(shipped_ids(engine))
assert verify_segments(directory).whole
print("held")
"""


def run_on_a_small_disk(script: str, directory: Path, *arguments: str) -> str:
    """Runs a script that mounts its own file system in a directory; returns its output."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        can = subprocess.run(
            [*command, "mount", "-t", "tmpfs", "tmpfs", str(directory)], check=False
        ).returncode
    except OSError:
        can = 1
    if can:
        pytest.skip("no mount namespaces here: only other tests fill a file up")
    done = subprocess.run(
        [*command, sys.executable, "-c", script, str(directory), *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.endswith("held\n"), done.stdout + done.stderr
    return done.stdout


def test_a_full_disk_refuses_and_recovers_within_a_second(tmp_path: Path) -> None:
    """F8: a file system of 64 KB. Denials are refused, a dropped allow becomes a gap, no part of a
    record is ever read as one."""
    run_on_a_small_disk(FULL_DISK, tmp_path)


def test_a_disk_smaller_than_a_segment_heals_as_soon_as_it_is_shipped(tmp_path: Path) -> None:
    """F8: 64 KB, filled while the database takes nothing. What is shipped makes room, though it is
    the last segment; the failure and the recovery are each logged once."""
    disk = tmp_path / "disk"
    disk.mkdir()
    make_sqlite(tmp_path / "pdp.db")
    said = run_on_a_small_disk(HEALING_DISK, disk, str(tmp_path / "pdp.db"))
    errors = [line for line in said.splitlines() if "errno=28" in line]
    assert 2 <= len(errors) <= 8  # of three times that it was full, each with two kinds of failure


def test_a_write_that_is_cut_short_leaves_no_part_of_a_record(tmp_path: Path) -> None:
    """F8, on any machine: the system lets no file grow beyond 4,096 bytes, in mid-record."""
    recorder = Recorder(tmp_path, ORIGIN)
    recorder.start()
    acked, refused = [], []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        for _ in range(40):
            record = decision_record()
            try:
                run(recorder.record([record]))
                acked.append(record.decision_id)
            except AuditUnavailable:
                refused.append(record.decision_id)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    recorder.stop()
    assert refused
    assert len(list_segments(tmp_path / ORIGIN)) == 1 + len(refused)
    assert ids_of(tmp_path / ORIGIN) == acked
    assert verify_segments(tmp_path).whole
