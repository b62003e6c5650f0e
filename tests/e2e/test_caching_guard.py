"""A guard that keeps allows, and a real server: what it saves, and what it must not cost."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from pdp_client import AnswerSource, Decision, Guard, PdpUnavailable, Resource
from pdpapi.v1.administration_service_pb2 import (
    CreateGrantRequest,
    DeleteGrantRequest,
    Grant,
    ListGrantsRequest,
)

from clients.python.tests.kit.caches import status
from tests.kit.proxy import Proxy
from tests.kit.server import ServerProcess, Stubs, running_server, token_of
from tests.kit.waiting import eventually

LEASE_SECONDS = 1.0
PAUSE_SECONDS = 0.002
"""Between two questions of a client that asks all the time."""
POLICY = """
permissions: [course:edit]
roles:
  TEACHER: {allow: [course:edit]}
users: [{id: user_tess}, {id: user_tom}]
"""
COURSE = Resource("course", "algebra")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Stubs]]:
    with running_server(tmp_path_factory.mktemp("server"), POLICY) as both:
        yield both


@pytest.fixture
def proxy(running: tuple[ServerProcess, Stubs]) -> Iterator[Proxy]:
    one = Proxy(("127.0.0.1", running[0].port))
    yield one
    one.close()


@dataclass
class Teaching:
    """Grants that make users teachers, which is what lets them edit."""

    stubs: Stubs

    def grant(self, user: str) -> str:
        request = CreateGrantRequest(grant=Grant(role="TEACHER", user_id=user))
        return self.stubs.administration.CreateGrant(request, timeout=10).grant.id

    def revoke(self, grant: str) -> int:
        """The revision from which on the grant is gone."""
        request = DeleteGrantRequest(id=grant)
        return self.stubs.administration.DeleteGrant(request, timeout=10).revision


@pytest.fixture
def teaching(running: tuple[ServerProcess, Stubs]) -> Teaching:
    return Teaching(running[1])


@pytest.fixture
def tess(teaching: Teaching) -> Iterator[str]:
    """The grant that lets `user_tess` edit."""
    grant = teaching.grant("user_tess")
    yield grant
    grants = teaching.stubs.administration.ListGrants(ListGrantsRequest(), timeout=10).grants
    if grant in {grant.id for grant in grants}:
        teaching.revoke(grant)


def caching(port: int, deadline_seconds: float = 10) -> Guard:
    return Guard(f"127.0.0.1:{port}", deadline_seconds=deadline_seconds, cache=True)


def decisions_counted(server: ServerProcess) -> float:
    lines = server.http("/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("pdp_decisions_total"))


def fill(guard: Guard, token: str) -> None:
    """Asks until an allow is cached."""
    eventually(lambda: is_kept(guard.check(token, "course:edit", COURSE)))


def is_kept(decision: Decision) -> bool:
    return decision.allowed and decision.source is AnswerSource.CACHED


def is_denied(guard: Guard, token: str) -> bool:
    """False if there is no answer; an allow fails the test."""
    try:
        assert not guard.check(token, "course:edit", COURSE).allowed
    except PdpUnavailable:
        return False
    return True


def last_allow(guard: Guard, token: str, until: float) -> float:
    """Asks all the time until `until`; when the last question was begun that was allowed. All in
    monotonic seconds."""
    last = 0.0
    while (began := time.monotonic()) < until:
        try:
            if guard.check(token, "course:edit", COURSE).allowed:
                last = began
        except PdpUnavailable:
            pass
        time.sleep(PAUSE_SECONDS)
    return last


def test_a_question_that_comes_again_costs_the_server_nothing(
    running: tuple[ServerProcess, Stubs], tess: str
) -> None:
    with caching(running[0].port) as guard:
        token = token_of("user_tess")
        fill(guard, token)
        stale_after = time.monotonic() + 5
        while True:
            before = decisions_counted(running[0])
            sources = {guard.check(token, "course:edit", COURSE).source for _ in range(1_000)}
            asked = decisions_counted(running[0]) - before
            if sources == {AnswerSource.CACHED}:
                break
            assert time.monotonic() < stale_after  # heartbeats may be late on a busy machine
        assert asked == 0


def test_a_revocation_drops_what_it_touches_and_nothing_else(
    running: tuple[ServerProcess, Stubs], teaching: Teaching, tess: str
) -> None:
    tom = teaching.grant("user_tom")
    with caching(running[0].port) as guard:
        theirs, others = token_of("user_tess"), token_of("user_tom")
        fill(guard, theirs)
        fill(guard, others)
        assert status(guard).entries == 2
        revision = teaching.revoke(tess)
        eventually(lambda: status(guard).revision >= revision, seconds=5)
        assert not guard.check(theirs, "course:edit", COURSE).allowed
        assert status(guard).entries == 1
        fill(guard, others)
        # And what is granted again is allowed again: no denial was kept.
        teaching.revoke(tom)
        again = teaching.grant("user_tess")
        eventually(lambda: guard.check(theirs, "course:edit", COURSE).allowed)
        teaching.revoke(again)


def test_after_the_servers_sudden_death_allows_end_with_the_lease(tmp_path: Path) -> None:
    """The server dies by SIGKILL."""
    with running_server(tmp_path, POLICY) as (server, stubs):
        Teaching(stubs).grant("user_tess")
        with caching(server.port, deadline_seconds=0.25) as guard:
            token = token_of("user_tess")
            fill(guard, token)
            server.kill()
            dead_at = time.monotonic()
            assert last_allow(guard, token, dead_at + 1.5) <= dead_at + LEASE_SECONDS


@pytest.mark.parametrize("silence", ["blackhole", "mute"])
def test_cut_off_without_a_word_allows_end_with_the_lease(
    proxy: Proxy, teaching: Teaching, tess: str, silence: str
) -> None:
    """Nothing arrives any more, in both directions or only in one, and
    nobody closes a connection."""
    with caching(proxy.port, deadline_seconds=0.25) as guard:
        token = token_of("user_tess")
        eventually(lambda: status(guard).live)
        fill(guard, token)
        getattr(proxy, silence)()
        cut_at = time.monotonic()
        teaching.revoke(tess)
        assert last_allow(guard, token, cut_at + 1.5) <= cut_at + LEASE_SECONDS
        proxy.forward()
        eventually(lambda: is_denied(guard, token))


ASKING = """
import sys, time
from pdp_client import Guard, PdpUnavailable, Resource
target, token = sys.argv[1:]
with Guard(target, deadline_seconds=0.25, cache=True) as guard:
    while True:
        began = time.monotonic()
        try:
            decision = guard.check(token, "course:edit", Resource("course", "algebra"))
            said = f"{decision.effect.value} {decision.source.value}"
        except PdpUnavailable:
            said = "unavailable"
        print(began, said, flush=True)
        time.sleep(0.0005)
"""


def test_a_process_that_was_paused_does_not_allow_what_was_revoked_meanwhile(
    running: tuple[ServerProcess, Stubs], teaching: Teaching, tess: str, tmp_path: Path
) -> None:
    """For the paused process no time has passed."""
    command = [sys.executable, "-c", ASKING, f"127.0.0.1:{running[0].port}", token_of("user_tess")]
    answers: list[tuple[float, str]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as child:

        def read() -> None:
            assert child.stdout is not None
            for line in child.stdout:
                began, said = line.rstrip().split(" ", 1)
                answers.append((float(began), said))

        reading = threading.Thread(target=read)
        reading.start()
        try:
            eventually(lambda: answers and answers[-1][1] == "allow cached")
            os.kill(child.pid, signal.SIGSTOP)
            stopped_at = time.monotonic()
            teaching.revoke(tess)
            eventually(lambda: time.monotonic() > stopped_at + LEASE_SECONDS + 0.2)
            resumed_at = time.monotonic()
            os.kill(child.pid, signal.SIGCONT)
            eventually(lambda: answers[-1][1] == "deny decided")
        finally:
            child.kill()
            reading.join(10)
    assert "allow" not in {said.split()[0] for began, said in answers if began > resumed_at}


def test_of_many_threads_with_one_question_at_most_two_ask(
    running: tuple[ServerProcess, Stubs], tess: str
) -> None:
    count = 200

    def stampede() -> float:
        """How many decisions it takes."""
        token, barrier = token_of("user_tess"), threading.Barrier(count)

        def ask() -> bool:
            barrier.wait(30)
            return guard.check(token, "course:edit", COURSE).allowed

        eventually(lambda: status(guard).live)
        before = decisions_counted(running[0])
        allowed = [pool.submit(ask) for _ in range(count)]
        assert all(future.result(60) for future in allowed)
        return decisions_counted(running[0]) - before

    with caching(running[0].port) as guard, ThreadPoolExecutor(count) as pool:
        # On a busy machine a heartbeat may be late; then everybody asks, as they should.
        assert any(stampede() <= 2 for _ in range(5))


def test_nothing_comes_from_the_cache_after_the_end_of_the_token(
    running: tuple[ServerProcess, Stubs], tess: str
) -> None:
    with caching(running[0].port) as guard:
        eventually(lambda: status(guard).live)
        ends = int(time.time()) + 2
        token = token_of("user_tess", claims={"exp": ends})
        fill(guard, token)
        given_again = 0.0
        while (now := time.time()) < ends + 0.5:
            if is_kept(guard.check(token, "course:edit", COURSE)):
                given_again = now
            time.sleep(PAUSE_SECONDS)
        assert 0 < given_again <= ends
