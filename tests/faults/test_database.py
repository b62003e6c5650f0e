"""The database is away, killed, slow, cut off, or the wrong one: a server process in front of a
PostgreSQL that the tests may kill."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from pdpapi.v1.administration_service_pb2 import (
    ApplyRequest,
    CreateGrantRequest,
    DeleteGrantRequest,
    ExportRequest,
    Grant,
    ListGrantsRequest,
)
from sqlalchemy import make_url

from pdp.database.migrations import migrate
from tests.kit import soak
from tests.kit.clusters import Cluster, started_cluster
from tests.kit.faults.load import Asked, ask_once, asking, question
from tests.kit.faults.table import FAULTS, Fault
from tests.kit.proxy import Proxy, proxied
from tests.kit.school import POLICY
from tests.kit.server import ServerProcess, Stubs, stubs_on
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually

BOUND = 1.5
SETTINGS = {"STALENESS_SECONDS_MAX": str(BOUND), "POLL_SECONDS": "0.1", "LOG_LEVEL": "info"}


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    with started_cluster() as started:
        yield started


@pytest.fixture
def cluster(own_cluster: Cluster) -> Iterator[Cluster]:
    """To be killed. It is there again afterwards."""
    yield own_cluster
    own_cluster.start()


@pytest.fixture(scope="module")
def way(own_cluster: Cluster) -> Iterator[tuple[Proxy, str]]:
    """To a database with the policy of the examples."""
    url = own_cluster.database()
    migrate(url)
    with proxied(url) as (proxy, through):
        yield proxy, through


@pytest.fixture(scope="module")
def server(
    way: tuple[Proxy, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server"), {"DATABASE_URL": way[1], **SETTINGS})
    server.start()
    with server.channel() as channel:
        stubs_on(channel).administration.Apply(ApplyRequest(document=POLICY), timeout=20)
    yield server
    server.stop()


@pytest.fixture
def proxy(way: tuple[Proxy, str]) -> Iterator[Proxy]:
    yield way[0]
    way[0].instead.clear()
    way[0].once_arrived.clear()
    way[0].latency_seconds = 0
    way[0].forward()


@pytest.fixture
def stubs(server: ServerProcess) -> Iterator[Stubs]:
    with server.channel() as channel:
        yield stubs_on(channel)


def heals(fault: Fault, server: ServerProcess, stubs: Stubs, since: Stopwatch) -> None:
    """It is ready again, and answers, within the time of the row."""
    request = question()
    eventually(lambda: ask_once(stubs, request).allowed, what="an allow")
    eventually(lambda: server.http("/readyz")[0] == 200, what="readiness")
    assert since.seconds < fault.healed_within()


def outlives(fault: Fault, server: ServerProcess, asked: list[Asked], since: float) -> None:
    """Answers go on from memory inside the bound, and end with it."""
    allowed_at = [answer.at for answer in asked if answer.allowed]
    refused = [answer for answer in asked if answer.error is not None and answer.at > since]
    assert any(at > since for at in allowed_at), "it answers from memory while it may"
    assert max(allowed_at) < since + fault.seconds(staleness_seconds_max=BOUND)
    assert refused
    for failure in refused:
        assert failure.error is not None
        fault.expect(failure.error)
    assert server.http("/readyz")[0] == (200 if fault.green else 503)


def test_a_server_starts_without_its_database_and_answers_soon_after_it_is_there(
    cluster: Cluster, server: ServerProcess
) -> None:
    fault = FAULTS["F1"]
    assert server.stop() == 0
    cluster.kill()
    server.start(ready=False)
    eventually(lambda: server.http("/healthz")[0] == 200, seconds=20)
    with server.channel() as channel:
        stubs, request = stubs_on(channel), question()
        grpc.channel_ready_future(channel).result(20)
        for _ in range(20):
            error = ask_once(stubs, request).error
            assert error is not None
            fault.expect(error)
        assert server.http("/readyz")[0] == 503
        assert not fault.green
        cluster.start()
        heals(fault, server, stubs, Stopwatch())


def test_when_the_database_is_killed_answers_end_with_the_bound_and_come_back_with_it(
    cluster: Cluster, server: ServerProcess, stubs: Stubs
) -> None:
    fault = FAULTS["F2"]
    with asking(stubs, question()) as log:
        eventually(lambda: len(log.allows()) > 20)
        cluster.kill()
        gone_at = time.monotonic()
        eventually(lambda: len(log.errors(gone_at)) > 20)
        outlives(fault, server, log.asked, gone_at)
        cluster.start()
        heals(fault, server, stubs, Stopwatch())


def test_what_is_in_memory_is_answered_as_ever_while_the_database_is_slow(
    proxy: Proxy, server: ServerProcess, stubs: Stubs
) -> None:
    fault = FAULTS["F3"]
    with asking(stubs, question()) as log:
        eventually(lambda: len(log.allows()) > 20)
        proxy.latency_seconds = 10
        slow_at, watch = time.monotonic(), Stopwatch()
        eventually(lambda: len(log.errors(slow_at)) > 20)
        outlives(fault, server, log.asked, slow_at)
        longest = max(asked.seconds for asked in log.asked if asked.at > slow_at)
        assert longest < 0.5 + watch.stalled
        proxy.latency_seconds = 0
        heals(fault, server, stubs, Stopwatch())


def test_cut_off_from_the_database_but_not_from_callers_answers_end_with_the_bound(
    proxy: Proxy, server: ServerProcess, stubs: Stubs
) -> None:
    """Nothing arrives any more, and no connection ends."""
    fault = FAULTS["F25"]
    with asking(stubs, question()) as log:
        eventually(lambda: len(log.allows()) > 20)
        proxy.blackhole()
        gone_at = time.monotonic()
        eventually(lambda: len(log.errors(gone_at)) > 20)
        outlives(fault, server, log.asked, gone_at)
        proxy.forward()
        heals(fault, server, stubs, Stopwatch())


@pytest.mark.soak
def test_a_write_whose_outcome_is_unknown_may_be_repeated(proxy: Proxy, stubs: Stubs) -> None:
    """The connection is reset before or after COMMIT arrives; the writer does not learn which."""
    fault, dice = FAULTS["F4"], random.Random(4)
    seen: set[tuple[str, str]] = set()

    def write(call: Callable[[], object], already: grpc.StatusCode | None = None) -> None:
        """Until it is known to be done."""
        fate = dice.choice(("never arrived", "unknown", "done"))
        if fate == "never arrived":
            proxy.instead[b"COMMIT"] = None
        elif fate == "unknown":
            proxy.once_arrived.add(b"COMMIT")

        def known() -> bool:
            try:
                call()
            except grpc.RpcError as error:
                if error.code() is already:
                    seen.add((fate, error.code().name))
                    return fate == "unknown"
                fault.expect(error)
                proxy.instead.clear()
                proxy.once_arrived.clear()
                return False
            seen.add((fate, "OK"))
            return True

        eventually(known, what="the write is known to be done")
        proxy.instead.clear()
        proxy.once_arrived.clear()

    administration = stubs.administration
    before = administration.Export(ExportRequest(), timeout=20).revision
    grants, enough = 0, soak.count(24, sample=8)
    # A reset may meet the COMMIT of another than the writer: go on until one has met the writer's.
    while grants < enough or ("unknown", "ALREADY_EXISTS") not in seen:
        number, grants = grants, grants + 1
        assert grants < 200, seen
        # The caller names every second one; the others get an id from their content.
        name = f"mine-{number}" if number % 2 else ""
        grant = Grant(id=name, role="STUDENT", user_id=f"new_{number}")
        create = CreateGrantRequest(grant=grant)
        write(lambda c=create: administration.CreateGrant(c), grpc.StatusCode.ALREADY_EXISTS)
        document = f"organizations: [{{id: org_school, slug: school, name: School {number}}}]"
        apply = ApplyRequest(document=document)
        write(lambda a=apply: administration.Apply(a))
    found = administration.ListGrants(ListGrantsRequest(page_size=1000), timeout=20)
    mine = [grant for grant in found.grants if grant.user_id.startswith("new_")]
    assert sorted(grant.user_id for grant in mine) == sorted(f"new_{n}" for n in range(grants))
    for grant in mine:
        delete = DeleteGrantRequest(id=grant.id)
        write(lambda d=delete: administration.DeleteGrant(d), grpc.StatusCode.NOT_FOUND)
    # Nothing was written twice: each write is one revision.
    after = administration.Export(ExportRequest(), timeout=20).revision
    assert after - before == 3 * grants


def test_a_standby_is_not_answered_from_and_is_once_it_has_taken_over(
    cluster: Cluster, way: tuple[Proxy, str], server: ServerProcess, tmp_path: Path
) -> None:
    fault = FAULTS["F38"]
    assert way[0].port
    with cluster.standby() as standby:
        url = make_url(standby.url).set(database=make_url(way[1]).database)
        text = url.render_as_string(hide_password=False)
        other = ServerProcess(tmp_path, {"DATABASE_URL": text, **SETTINGS})
        other.start(ready=False)
        try:
            with other.channel() as channel:
                grpc.channel_ready_future(channel).result(20)
                stubs = stubs_on(channel)
                for _ in range(10):
                    error = ask_once(stubs, question()).error
                    assert error is not None
                    fault.expect(error)
                eventually(lambda: "standby" in other.log())
                assert other.http("/readyz")[0] == 503
                assert not fault.green
                standby.promote()
                heals(fault, other, stubs, Stopwatch())
        finally:
            other.stop()
