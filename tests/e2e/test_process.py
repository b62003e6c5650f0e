"""The process: start, stop, death, and what is left of the log."""

import concurrent.futures
import contextlib
import itertools
import os
import resource
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest
from pdpapi.v1.audit_service_pb2 import ListDecisionsRequest
from pdpapi.v1.core_pb2 import Decision
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit.school import ALGEBRA, ORGANIZATION, POLICY, ask, reason_of
from tests.kit.server import ServerProcess, Stubs, running_server, stubs_on, token_of
from tests.kit.waiting import eventually
from tests.kit.wire.errors import error_info, rpc_error


def recorded_ids(stubs: Stubs) -> Counter[str]:
    """Each decision id, and how many decisions have it."""
    found: Counter[str] = Counter()
    request = ListDecisionsRequest(page_size=1000)
    while True:
        page = stubs.audit.ListDecisions(request, timeout=10)
        found.update({record.decision_id: record.occurrences for record in page.decisions})
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


def test_no_denial_that_was_answered_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    """The moment of SIGKILL is arbitrary: denials are asked for as fast as possible, by eight.
    Half of them are equal, and share a record that counts them."""
    answered: list[str] = []
    token = token_of("user_sam", organization_id=ORGANIZATION)
    request = CheckRequest(actor_token=token, permission="course:edit", resource=ALGEBRA)
    numbers = itertools.count()
    with running_server(tmp_path, POLICY) as (server, stubs):

        def keep_asking() -> None:
            while True:
                number = next(numbers)
                asked = CheckRequest()
                asked.CopyFrom(request)
                if number % 2:
                    asked.resource.id = f"course_{number}"
                try:
                    response = stubs.decision.Check(asked, timeout=5)
                except grpc.RpcError:
                    return
                assert response.decision == Decision.DECISION_DENY
                answered.append(response.decision_id)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(keep_asking)
            eventually(lambda: len(answered) > 500, what="500 denials")
            server.kill()
        assert len(answered) > 500
        server.start()
        with server.channel() as channel:
            again = stubs_on(channel)
            eventually(
                lambda: Counter(answered) <= recorded_ids(again), what="every denial on record"
            )
        assert len(set(answered)) < len(answered)


def test_sigterm_finishes_what_is_in_flight(tmp_path: Path) -> None:
    failures: list[grpc.RpcError] = []
    answers = 0
    with running_server(tmp_path, POLICY) as (server, stubs):
        stopped = threading.Event()

        def keep_asking() -> None:
            nonlocal answers
            while not stopped.is_set():
                try:
                    ask(stubs, "user_sam", "course:edit")
                    answers += 1
                except grpc.RpcError as error:
                    failures.append(error)
                    return

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(keep_asking)
            eventually(lambda: answers > 100)
            assert server.stop() == 0
            stopped.set()
    # Requests after the listener was closed were refused; none was cut off in the middle.
    assert {error.code() for error in failures} <= {grpc.StatusCode.UNAVAILABLE}
    assert "Traceback" not in server.log()


def test_a_write_is_seen_by_the_next_check_that_asks_for_its_revision(stubs: Stubs) -> None:
    from pdpapi.v1.administration_service_pb2 import CreateGrantRequest, DeleteGrantRequest, Grant

    for _ in range(20):
        created = stubs.administration.CreateGrant(
            CreateGrantRequest(grant=Grant(role="ADMIN", user_id="user_sam"))
        )
        request = CheckRequest(
            actor_token=token_of("user_sam", organization_id=ORGANIZATION),
            permission="course:edit",
            resource=ALGEBRA,
            at_least_revision=created.revision,
        )
        assert reason_of(stubs.decision.Check(request)) == "ALLOWED_BY_RULE"
        deleted = stubs.administration.DeleteGrant(DeleteGrantRequest(id=created.grant.id))
        request.at_least_revision = deleted.revision
        assert reason_of(stubs.decision.Check(request)) == "PERMISSION_NOT_GRANTED"


def test_a_revoked_session_is_refused_though_its_token_lives(stubs: Stubs) -> None:
    """WSO2 CVE-2026-3583: a revoked token was answered from a cache."""
    from pdpapi.v1.administration_service_pb2 import RevokeSessionRequest

    token = token_of("user_sam", organization_id=ORGANIZATION, session_id="sess_stolen")
    request = CheckRequest(actor_token=token, permission="course:view", resource=ALGEBRA)
    assert reason_of(stubs.decision.Check(request)) == "ALLOWED_BY_RULE"
    revoked = stubs.administration.RevokeSession(
        RevokeSessionRequest(session_id="sess_stolen", user_id="user_sam")
    )
    request.at_least_revision = revoked.revision
    assert reason_of(stubs.decision.Check(request)) == "SESSION_REVOKED"


def test_without_its_database_the_process_is_alive_and_says_so(tmp_path: Path) -> None:
    server = ServerProcess(
        tmp_path, {"DATABASE_URL": "postgresql://pdp:hunter2canary@127.0.0.1:1/pdp"}
    )
    server.start(ready=False)
    try:
        eventually(lambda: server.http("/healthz")[0] == 200, seconds=20)
        status, text = server.http("/readyz")
        assert status == 503
        assert "policy and facts" in text
        with server.channel() as channel:
            stubs = stubs_on(channel)
            request = CheckRequest(actor_token=token_of("user_sam"), permission="course:view")
            error = rpc_error(
                lambda: stubs.decision.Check(request, timeout=10, wait_for_ready=True)
            )
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert error_info(error).reason in {"DATABASE_UNAVAILABLE", "FACTS_STALE"}
        # SpiceDB CVE-2023-46255: a database URL with its password in the log.
        assert "hunter2canary" not in server.log() + str(error) + server.http("/metrics")[1]
    finally:
        server.stop()


def test_several_processes_share_one_port_and_one_database(tmp_path: Path) -> None:
    with running_server(tmp_path, POLICY, PROCESSES="2") as (server, _):
        origins = set()

        def asked_both() -> bool:
            with server.channel() as channel:
                try:
                    assert reason_of(ask(stubs_on(channel), "user_sam", "course:edit"))
                except grpc.RpcError as error:  # one of them is not ready yet
                    assert error.code() is grpc.StatusCode.UNAVAILABLE
            origins.update(p.name for p in (server.directory / "audit").iterdir() if p.is_dir())
            return len(origins) == 2

        eventually(asked_both)
        assert server.stop() == 0


def test_a_second_process_on_the_same_port_says_why_it_does_not_start(
    server: ServerProcess,
) -> None:
    done = server.pdp("serve")
    assert done.returncode == 2
    assert "pdp:" in done.stderr
    assert "cannot join" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("seconds", [0.5])
def test_a_paused_process_does_not_answer_from_the_past(tmp_path: Path, seconds: float) -> None:
    """A process that was stopped for longer than the bound confirms first, or says UNAVAILABLE."""
    with running_server(tmp_path, POLICY, STALENESS_SECONDS_MAX=str(seconds)) as (
        server,
        stubs,
    ):

        def is_allowed() -> bool:
            try:
                return reason_of(ask(stubs, "user_sam", "course:view")) == "ALLOWED_BY_RULE"
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                return False

        eventually(is_allowed)  # a busy machine may exceed the bound by itself
        eventually(lambda: pauses_without_a_lock(server))
        try:
            # Revoked while the process is paused, through the database.
            exported = server.pdp("export")
            assert exported.returncode == 0, exported.stderr
            export = exported.stdout
            assert "role: STUDENT" in export
            start = export.index("grants:")
            without_grants = export[:start] + "grants: []\n" + _after_section(export[start:])
            applied = server.pdp("apply", "-", stdin=without_grants)
            assert applied.returncode == 0, applied.stderr
            paused = time.monotonic()
            eventually(lambda: time.monotonic() - paused > seconds)
        finally:
            server.signal(signal.SIGCONT)
        assert not any(is_allowed() for _ in range(50))


def pauses_without_a_lock(server: ServerProcess) -> bool:
    """Pauses the server, unless it is just writing: then nobody else could write to SQLite."""
    server.signal(signal.SIGSTOP)
    database = sqlite3.connect(server.directory / "pdp.db", timeout=0, isolation_level=None)
    with contextlib.closing(database):
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            server.signal(signal.SIGCONT)
            return False
    return True


def _after_section(text: str) -> str:
    lines = text.splitlines(keepends=True)[1:]
    for number, line in enumerate(lines):
        if line[0] not in " -":
            return "".join(lines[number:])
    return ""


def test_a_unix_socket_and_the_database_are_for_nobody_else_though_the_umask_lets_them(
    tmp_path: Path,
) -> None:
    socket_file = tmp_path / "pdp.sock"
    server = ServerProcess(tmp_path, {"LISTEN": f"unix:{socket_file}"})
    before = os.umask(0)
    try:
        server.start()
    finally:
        os.umask(before)
    try:
        assert socket_file.stat().st_mode & 0o777 == 0o660
        assert (tmp_path / "pdp.db").stat().st_mode & 0o777 == 0o600
    finally:
        server.stop()


def test_a_process_whose_port_is_lost_ends_so_that_it_is_started_again(tmp_path: Path) -> None:
    """h2corn stops accepting for good when the process may open no more files."""
    with running_server(tmp_path) as (server, _), contextlib.ExitStack() as opened:
        assert server.process is not None
        pid = server.process.pid
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (files + 4, files + 4))
        for _ in range(16):
            with contextlib.suppress(ConnectionError):
                opened.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
        assert server.process.wait(30) == 1
        assert "listener_ended" in server.log()
