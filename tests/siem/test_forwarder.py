"""`pdp audit forward`: nothing lost, nothing out of order, repetitions only with equal ids."""

import json
import random
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from pdpapi.v1.administration_service_pb2 import CreatePermissionRequest
from pdpapi.v1.audit_service_pb2 import (
    DecisionRecord,
    FollowDecisionsRequest,
    ListChangesRequest,
)
from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, CheckItem

from pdp.clock import wall_clock
from pdp.siem.cursor import CursorFile
from pdp.siem.forwarder import Forwarder
from pdp.siem.source import ServerSource
from tests.kit import prefork
from tests.kit.server import ServerProcess, Stubs, running_server
from tests.kit.siem.collector import running_collector
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
    await_shipped(server, deny(stubs, 1)[0])
    end = FollowDecisionsRequest(from_end=True)
    newest = stubs.audit.FollowDecisions(end, timeout=10).cursor
    cursor.write_text(json.dumps({"cursor": newest}))


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
        done = prefork.run(["audit", "forward"], cwd=tmp_path, env=second.environment, timeout=60)
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
    ids = deny(stubs, 600)
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


def test_a_collector_of_otlp_that_fails_and_rejects_gets_everything_else_in_order(
    served: tuple[ServerProcess, Stubs], cursor: Path
) -> None:
    server, stubs = served
    ids = deny(stubs, 120)
    poison = ids[17]
    with running_collector() as collector:
        statuses = iter([503, 429])
        collector.receiver.answer = lambda _: next(statuses, 200)
        collector.rejects = lambda log: poison in log.body.string_value
        with forwarding(
            server,
            CURSOR_FILE=str(cursor),
            OTLP={"url": collector.receiver.url},
            BATCH_RECORDS="50",
        ) as forwarder:
            await_forwarded(forwarder, 119)
            eventually(lambda: forwarder.metric("pdp_forward_refused_records") == 1)
        received = without_repetitions(ids_of(collector.receiver.lines))
        assert received == [id_ for id_ in ids if id_ != poison]
        assert collector.receiver.requests[:2] == [503, 429]


def test_changes_arrive_between_decisions_also_after_a_kill(
    served: tuple[ServerProcess, Stubs], cursor: Path
) -> None:
    server, stubs = served
    expected: list[tuple[int, str]] = []
    with http_receiver() as receiver:
        kills = iter([True, False, True])
        forwarder = ForwardProcess(
            server,
            {"CURSOR_FILE": str(cursor), "HTTP": {"url": receiver.url}, "BATCH_RECORDS": "5"},
        )

        def answer(_: list[str]) -> int:
            if next(kills, False):
                forwarder.kill()
            return 200

        receiver.answer = answer
        for number in range(3):
            ids = deny(stubs, 4)
            await_shipped(server, ids[-1])
            number_all(stubs)
            created = stubs.administration.CreatePermission(
                CreatePermissionRequest(permission={"name": f"feed:p{number}"}), timeout=10
            )
            await_placed(server, created.revision)
            expected += [(6003, id_) for id_ in ids]
            number_all(stubs)
            (change,) = stubs.audit.ListChanges(ListChangesRequest(page_size=1), timeout=10).changes
            expected.append((3004, f"{change.epoch}/{change.revision}/0"))
        times_killed = 0
        while len(set(receiver.lines)) < len(expected):
            forwarder.start()
            process = forwarder.process
            assert process is not None
            eventually(
                lambda process=process: (
                    process.poll() is not None or len(set(receiver.lines)) == len(expected)
                ),
                seconds=60,
            )
            times_killed += process.poll() is not None
        forwarder.kill()
    events = [json.loads(line) for line in without_repetitions(receiver.lines)]
    assert [(event["class_uid"], event["metadata"]["uid"]) for event in events] == expected
    assert times_killed == 2
    assert len(receiver.lines) > len(expected)


def await_shipped(server: ServerProcess, decision_id: str) -> None:
    """Waits until a decision is in SQL."""
    query = "SELECT count(*) FROM audit_records WHERE decision_id = ?"
    eventually(lambda: count_of(server, query, decision_id), seconds=60)


def number_all(stubs: Stubs) -> None:
    """Gives all that is in SQL its place in the order, as each reader does."""
    stubs.audit.FollowDecisions(FollowDecisionsRequest(from_end=True), timeout=10)


def await_placed(server: ServerProcess, revision: int) -> None:
    """Waits until a change is in the log of changes."""
    query = "SELECT count(*) FROM administration_places WHERE revision = ?"
    eventually(lambda: count_of(server, query, revision), seconds=60)


def count_of(server: ServerProcess, query: str, value: object) -> int:
    """What a query counts in the server's database."""
    with closing(sqlite3.connect(server.directory / "pdp.db")) as database:
        (count,) = database.execute(query, (value,)).fetchone()
        return int(count)


def test_metrics_count_the_records_that_wait_and_those_that_were_dropped(
    served: tuple[ServerProcess, Stubs], cursor: Path
) -> None:
    server, stubs = served
    last = deny(stubs, 300)[-1]
    await_shipped(server, last)
    with closing(sqlite3.connect(server.directory / "pdp.db")) as database, database:
        # As a process writes it that had to drop allows, at the place of a denial.
        database.execute(
            "INSERT INTO audit_gaps SELECT origin, log_id, segment, position, decided_at, 7, digest"
            " FROM audit_records WHERE decision_id = ?",
            (last,),
        )
        database.execute("DELETE FROM audit_records WHERE decision_id = ?", (last,))
    with http_receiver() as receiver:
        goes_on = threading.Event()
        receiver.answer = lambda _: 200 if goes_on.wait(60) else 500
        with forwarding(
            server,
            CURSOR_FILE=str(cursor),
            HTTP={"url": receiver.url, "seconds_max": 100},
            BATCH_RECORDS="100",
        ) as forwarder:
            eventually(
                lambda: forwarder.ready()[0] and forwarder.metric("pdp_forward_waiting_records"),
                seconds=60,
            )
            assert forwarder.metric("pdp_forward_waiting_records") == 300
            eventually(lambda: forwarder.metric("pdp_forward_oldest_waiting_seconds") > 0.5)
            assert forwarder.metric("pdp_forward_dropped_records") == 0
            goes_on.set()
            await_forwarded(forwarder, 299)
            eventually(lambda: forwarder.metric("pdp_forward_dropped_records") == 7)
            eventually(lambda: forwarder.metric("pdp_forward_waiting_records") == 0)
            assert forwarder.metric("pdp_forward_oldest_waiting_seconds") == 0


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
