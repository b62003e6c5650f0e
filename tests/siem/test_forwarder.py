"""`pdp audit forward`: nothing lost, nothing out of order, repetitions only with equal ids."""

import json
import random
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pdpapi.v1.audit_service_pb2 import DecisionRecord
from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, CheckItem

from pdp.clock import wall_clock
from pdp.siem.cursor import CursorFile
from pdp.siem.forwarder import Forwarder
from pdp.siem.source import ServerSource
from tests.kit.server import PDP, ServerProcess, Stubs, running_server
from tests.kit.siem.forwarding import (
    ForwardProcess,
    await_forwarded,
    deny,
    forwarding,
    ids_in,
    ids_of,
    without_repetitions,
)
from tests.kit.siem.receivers import http_receiver, tls_files
from tests.kit.siem.rsyslog import needs_rsyslog, running_rsyslog
from tests.kit.waiting import eventually


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Stubs]]:
    """One server for all tests: each begins at the end of its log."""
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def begin_at_end(server: ServerProcess, stubs: Stubs, cursor: Path) -> None:
    """Writes the cursor of everything that is logged by now."""
    last = deny(stubs, 1)[0]

    def is_shipped() -> bool:
        return server.pdp("audit", "show", last).returncode == 0

    eventually(is_shipped, seconds=60)
    done = server.pdp("audit", "list", "--json", "--after", "start")
    newest = json.loads(done.stdout.splitlines()[-1])
    assert newest["decision_id"] == last
    cursor.write_text(json.dumps({"cursor": newest["cursor"]}))


@pytest.fixture
def cursor(served: tuple[ServerProcess, Stubs], tmp_path: Path) -> Path:
    """A cursor at the end of the log."""
    path = tmp_path / "forward.cursor"
    begin_at_end(*served, path)
    return path


def test_a_file_gets_each_record_once_in_order_through_restarts(
    served: tuple[ServerProcess, Stubs], cursor: Path, tmp_path: Path
) -> None:
    server, stubs = served
    path = tmp_path / "events.jsonl"
    settings = {"CURSOR_FILE": str(cursor), "FILE": {"path": str(path)}, "BATCH_RECORDS": "100"}
    ids = deny(stubs, 730)
    with forwarding(server, **settings) as forwarder:
        await_forwarded(forwarder, 730)
        assert forwarder.ready() == (200, "ready\n")
        # Another process with this cursor ends at once.
        second = ForwardProcess(server, {**settings, "HTTP_LISTEN": "127.0.0.1:0"})
        done = subprocess.run(
            [*PDP, "audit", "forward"],
            env=second.environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, "another process" in done.stderr) == (2, True)
        assert forwarder.stop() == 0
    ids += deny(stubs, 20)
    with forwarding(server, **settings) as forwarder:
        await_forwarded(forwarder, 20)
        eventually(lambda: forwarder.metric("pdp_forward_lag_seconds") < 5)
        assert forwarder.stop() == 0
    assert ids_in(path) == ids


def test_an_http_receiver_that_fails_and_returns_gets_everything_in_order(
    served: tuple[ServerProcess, Stubs], cursor: Path
) -> None:
    server, stubs = served
    ids = deny(stubs, 500)
    with http_receiver() as receiver:
        failing = threading.Event()
        failing.set()
        receiver.answer = lambda _: 503 if failing.is_set() else 200
        with forwarding(
            server, CURSOR_FILE=str(cursor), HTTP={"url": receiver.url}, BATCH_RECORDS="50"
        ) as forwarder:
            eventually(lambda: len(receiver.requests) >= 3, seconds=60)
            status, text = forwarder.ready()
            assert (status, text) == (503, "the HTTP receiver answers 503\n")
            assert forwarder.metric("pdp_forward_failures") >= 2
            assert forwarder.metric("pdp_forward_lag_seconds") > 0
            failing.clear()
            await_forwarded(forwarder, 500)
            assert forwarder.ready()[0] == 200
            assert ids_of(receiver.lines) == ids
            failing.set()
            ids += deny(stubs, 30)
            seen = len(receiver.requests)
            eventually(lambda: len(receiver.requests) > seen + 1, seconds=60)
            failing.clear()
            await_forwarded(forwarder, 530)
            assert ids_of(receiver.lines) == ids


def test_a_process_killed_between_delivery_and_cursor_repeats_only_what_it_sent(
    served: tuple[ServerProcess, Stubs], cursor: Path
) -> None:
    server, stubs = served
    ids = deny(stubs, 400)
    kills = iter([True, False, True, True, False, False, True])
    with http_receiver() as receiver:
        forwarder = ForwardProcess(
            server,
            {"CURSOR_FILE": str(cursor), "HTTP": {"url": receiver.url}, "BATCH_RECORDS": "70"},
        )

        def answer(lines: list[str]) -> int:
            if next(kills, False):
                # It has everything, and the forwarder never learns of it.
                forwarder.kill()
            return 200

        receiver.answer = answer
        times_killed = 0
        while len(set(ids_of(receiver.lines))) < 400:
            forwarder.start()
            process = forwarder.process
            assert process is not None
            eventually(
                lambda process=process: (
                    process.poll() is not None or len(set(ids_of(receiver.lines))) == 400
                ),
                seconds=60,
            )
            times_killed += process.poll() is not None
            assert times_killed <= 4
        if process.poll() is None:
            assert forwarder.stop() == 0
        received = ids_of(receiver.lines)
    assert times_killed == 4
    assert without_repetitions(received) == ids
    assert len(received) > 400


def test_kills_at_random_moments_lose_nothing_and_tear_no_line(
    served: tuple[ServerProcess, Stubs], cursor: Path, tmp_path: Path
) -> None:
    server, stubs = served
    path = tmp_path / "events.jsonl"
    ids = deny(stubs, 1_000)
    moments = random.Random(15)
    for kill in (True, True, True, False):
        with forwarding(
            server, CURSOR_FILE=str(cursor), FILE={"path": str(path)}, BATCH_RECORDS="7"
        ) as forwarder:
            enough = len(ids_in(path)) + moments.randrange(1, 150)
            if kill:
                eventually(lambda enough=enough: len(ids_in(path)) >= enough, seconds=60)
                forwarder.kill()
            else:
                eventually(lambda: set(ids_in(path)) == set(ids), seconds=60)
                assert forwarder.stop() == 0
    assert without_repetitions(ids_in(path)) == ids
    assert len(ids_in(path)) <= len(ids) + 3 * 7


@needs_rsyslog
def test_an_rsyslog_that_is_killed_and_started_again_misses_nothing(
    served: tuple[ServerProcess, Stubs], cursor: Path, tmp_path: Path
) -> None:
    server, stubs = served
    files = tls_files(tmp_path)
    ids = deny(stubs, 300)
    syslog = {"host": "localhost", "ca_file": str(files.authority)}

    def received() -> list[str]:
        return ids_of([fields[4].lstrip() for fields in receiver.received() if len(fields) == 5])

    with (
        running_rsyslog(tmp_path / "rsyslog", files) as receiver,
        forwarding(
            server,
            CURSOR_FILE=str(cursor),
            SYSLOG={**syslog, "port": receiver.port, "seconds_max": 10},
            BATCH_RECORDS="20",
        ) as forwarder,
    ):
        eventually(lambda: len(received()) >= 300, seconds=60, what=receiver.log())
        receiver.kill()
        ids += deny(stubs, 100)
        eventually(lambda: forwarder.ready()[0] == 503, seconds=60)
        receiver.start()
        eventually(lambda: set(received()) == set(ids), seconds=60, what=receiver.log())
        assert forwarder.stop() == 0
        assert without_repetitions(received()) == ids


def test_a_record_that_is_refused_is_set_aside_and_those_behind_it_arrive(
    served: tuple[ServerProcess, Stubs], cursor: Path
) -> None:
    server, stubs = served
    ids = deny(stubs, 60)
    poison = ids[17]
    with http_receiver() as receiver:
        receiver.answer = lambda lines: 400 if poison in ids_of(lines) else 200
        with forwarding(server, CURSOR_FILE=str(cursor), HTTP={"url": receiver.url}) as forwarder:
            await_forwarded(forwarder, 59)
            eventually(lambda: forwarder.metric("pdp_forward_refused_records") == 1)
            assert forwarder.ready()[0] == 200
            assert ids_of(receiver.lines) == [id_ for id_ in ids if id_ != poison]
            refused = cursor.with_name("forward.cursor.refused").read_text().splitlines()
            assert [json.loads(line)["decision_id"] for line in refused] == [poison]
            assert poison in forwarder.log()


def test_a_receiver_that_refuses_everything_loses_nothing(
    served: tuple[ServerProcess, Stubs], cursor: Path
) -> None:
    server, stubs = served
    ids = deny(stubs, 5)
    with http_receiver() as receiver:
        refuses = threading.Event()
        refuses.set()
        receiver.answer = lambda _: 400 if refuses.is_set() else 200
        with forwarding(server, CURSOR_FILE=str(cursor), HTTP={"url": receiver.url}) as forwarder:
            eventually(lambda: "refuses every record" in forwarder.ready()[1], seconds=60)
            assert not cursor.with_name("forward.cursor.refused").exists()
            refuses.clear()
            await_forwarded(forwarder, 5)
            assert ids_of(receiver.lines) == ids


def test_a_slow_receiver_does_not_fill_the_memory(
    served: tuple[ServerProcess, Stubs], cursor: Path
) -> None:
    server, stubs = served
    ids = deny(stubs, 12_000)

    def resident_bytes() -> int:
        assert forwarder.process is not None
        status = Path(f"/proc/{forwarder.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10

    with http_receiver() as receiver:
        goes_on = threading.Event()
        receiver.answer = lambda _: 200 if goes_on.wait(60) else 500
        with forwarding(
            server, CURSOR_FILE=str(cursor), HTTP={"url": receiver.url, "seconds_max": 100}
        ) as forwarder:
            eventually(lambda: forwarder.ready()[0] == 200, seconds=60)
            # Records that wait at the server, while the first batch is with the receiver.
            threading.Event().wait(2)
            waiting = resident_bytes()
            goes_on.set()
            await_forwarded(forwarder, 12_000)
            assert ids_of(receiver.lines) == ids
            assert resident_bytes() < waiting + (48 << 20)


def test_a_cursor_of_another_log_is_reported_and_nothing_is_skipped(
    served: tuple[ServerProcess, Stubs], tmp_path: Path
) -> None:
    server, _ = served
    cursor, path = tmp_path / "forward.cursor", tmp_path / "events.jsonl"
    cursor.write_text(json.dumps({"cursor": "bm90IG91cnM"}))
    settings = {"CURSOR_FILE": str(cursor), "FILE": {"path": str(path)}}
    with forwarding(server, **settings) as forwarder:
        eventually(lambda: "INVALID_ARGUMENT" in forwarder.ready()[1], seconds=60)
        assert forwarder.metric("pdp_ready") == 0
    cursor.write_text("{")
    with forwarding(server, **settings) as forwarder:
        eventually(lambda: "not a cursor" in forwarder.ready()[1], seconds=60)
    assert not path.exists()


def test_from_end_begins_with_what_is_logged_from_now_on(
    served: tuple[ServerProcess, Stubs], tmp_path: Path
) -> None:
    server, stubs = served
    cursor, path = tmp_path / "forward.cursor", tmp_path / "events.jsonl"
    begin_at_end(server, stubs, tmp_path / "unused")
    with forwarding(
        server, CURSOR_FILE=str(cursor), FILE={"path": str(path)}, FROM_END="true"
    ) as forwarder:
        eventually(cursor.exists, seconds=60)
        ids = deny(stubs, 3)
        await_forwarded(forwarder, 3)
    assert ids_in(path) == ids


def test_a_settled_record_has_the_complete_count_of_equal_denials(
    served: tuple[ServerProcess, Stubs], cursor: Path, tmp_path: Path
) -> None:
    server, stubs = served
    path = tmp_path / "events.jsonl"
    equal = BatchCheckRequest(actor_token="x", items=[CheckItem(permission="course:equal")])
    with forwarding(
        server, CURSOR_FILE=str(cursor), FILE={"path": str(path)}, SETTLE_SECONDS="12"
    ) as forwarder:
        eventually(lambda: forwarder.ready()[0] == 200, seconds=60)
        for _ in range(20):
            stubs.decision.BatchCheck(equal, timeout=10)
        eventually(lambda: ids_in(path), seconds=60)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sum(line["count"] for line in lines) == 20


def test_a_bug_in_the_middle_of_a_log_skips_no_page(
    served: tuple[ServerProcess, Stubs], cursor: Path
) -> None:
    server, stubs = served
    ids = deny(stubs, 50)
    delivered: list[str] = []

    class Odd:
        """A destination with a bug that shows twice."""

        bugs = 2

        def deliver(self, records: Sequence[DecisionRecord]) -> None:
            if len(delivered) >= 20 and self.bugs:
                self.bugs -= 1
                raise KeyError("a bug")
            delivered.extend(record.decision_id for record in records)

    with server.channel() as channel:
        forwarder = Forwarder(
            ServerSource(channel, None, page_records=10),
            Odd(),
            CursorFile(cursor),
            from_end=False,
            settle_seconds=0,
            refused_file=cursor.with_name("refused"),
            clock=wall_clock,
        )
        forwarder.start()
        eventually(lambda: len(delivered) >= 50, seconds=60)
        forwarder.stop()
    assert delivered == ids


def test_without_a_server_it_waits_and_says_so(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)  # which is not started
    with forwarding(server, FILE={"path": str(tmp_path / "events.jsonl")}) as forwarder:
        eventually(lambda: "UNAVAILABLE" in forwarder.ready()[1], seconds=90)
        assert forwarder.stop() == 0
