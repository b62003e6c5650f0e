"""A sidecar between real clients and real servers: what it serves from its cache, and what not."""

import functools
import hashlib
import ipaddress
import json
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from pdpapi.v1.audit_service_pb2 import DecisionRecord, ListDecisionsRequest
from pdpapi.v1.core_pb2 import (
    ANSWER_SOURCE_CACHED,
    ANSWER_SOURCE_STAYED_OPEN,
    ANSWER_SOURCE_UNSPECIFIED,
    DECISION_ALLOW,
    DECISION_DENY,
    Resource,
)
from pdpapi.v1.decision_service_pb2 import (
    BatchCheckRequest,
    BatchCheckResponse,
    CheckItem,
    CheckRequest,
    CheckResponse,
)

from tests.kit.faults.table import FAULTS
from tests.kit.proxy import Proxy
from tests.kit.school import ALGEBRA, ORGANIZATION, POLICY
from tests.kit.server import ServerProcess, Stubs, running_server, stubs_on, token_of
from tests.kit.sidecar import metric, running_sidecar, set_status
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually
from tests.kit.wire.errors import error_info, rpc_error
from tests.kit.wire.tls import Authority, digest

CHECK = "/pdpapi.v1.PolicyDecisionService/Check"
BIOLOGY = Resource(type="course", id="biology")
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

Pair = tuple[ServerProcess, Stubs]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_server(tmp_path_factory.mktemp("upstream"), POLICY) as one:
        yield one


@pytest.fixture(scope="module")
def beside(upstream: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A sidecar that nothing happens to."""
    directory = tmp_path_factory.mktemp("beside")
    with running_sidecar(directory, upstream[0].port) as one:
        yield one


@pytest.fixture(scope="module")
def proxy(upstream: Pair) -> Iterator[Proxy]:
    one = Proxy(("127.0.0.1", upstream[0].port))
    yield one
    one.close()


@pytest.fixture(scope="module")
def _cut_off(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    settings = {
        "STAY_OPEN": [{"permission": "lesson:*", "seconds": 1.5}],
        "DEADLINE_SECONDS": "0.25",
    }
    directory = tmp_path_factory.mktemp("cut-off")
    with running_sidecar(directory, proxy.port, **settings) as one:
        yield one


@pytest.fixture
def cut_off(proxy: Proxy, _cut_off: Pair) -> Iterator[Pair]:
    """A sidecar behind the proxy, live when a test begins."""
    eventually(_cut_off[0].is_live, seconds=20)
    yield _cut_off
    proxy.forward()


def question(
    user: str = "user_sam", permission: str = "course:view", resource: Resource = ALGEBRA
) -> CheckRequest:
    token = token_of(user, organization_id=ORGANIZATION)
    return CheckRequest(actor_token=token, permission=permission, resource=resource)


def ask(stubs: Stubs, request: CheckRequest) -> CheckResponse:
    answer: CheckResponse = stubs.decision.Check(request, timeout=20)
    return answer


def ask_until_cached(stubs: Stubs, request: CheckRequest) -> CheckResponse:
    """The last answer: another test may have changed something meanwhile, and a slow disk may keep
    a denial from being given."""
    found: list[CheckResponse] = []

    def is_cached() -> bool:
        try:
            found.append(ask(stubs, request))
        except grpc.RpcError as error:
            assert error.code() is UNAVAILABLE, error
            return False
        return found[-1].source == ANSWER_SOURCE_CACHED

    eventually(is_cached, what="the answer comes from the cache")
    return found[-1]


def on_record(stubs: Stubs, permission: str, user: str) -> dict[str, DecisionRecord]:
    listed = stubs.audit.ListDecisions(
        ListDecisionsRequest(permission=permission, user_id=user, page_size=1000), timeout=10
    )
    return {decision.decision_id: decision for decision in listed.decisions}


# --- what comes from the cache -----------------------------------------------------------------


def test_an_equal_question_is_answered_again_without_asking_upstream(
    upstream: Pair, beside: Pair
) -> None:
    request = question("user_ivan", "course:edit")
    first = ask_until_cached(beside[1], request)
    asked = metric(upstream[0], "pdp_rpc_seconds_count", method="Check")
    hits = metric(beside[0], "pdp_sidecar_hits")
    for _ in range(20):
        again = ask(beside[1], request)
        assert again == first, "an allow keeps even its decision id"
    assert first.decision == DECISION_ALLOW
    assert metric(upstream[0], "pdp_rpc_seconds_count", method="Check") == asked
    assert metric(beside[0], "pdp_sidecar_hits") == hits + 20
    assert not first.HasField("reusable_for"), "it counts from when upstream was asked"


def test_a_revocation_empties_what_was_answered_to_that_user_and_nothing_else(
    upstream: Pair, beside: Pair
) -> None:
    sam, ivan = question("user_sam"), question("user_ivan")
    for request in (sam, ivan):
        assert ask_until_cached(beside[1], request).decision == DECISION_ALLOW
    set_status(upstream[1], "user_sam", active=False)
    eventually(lambda: ask(beside[1], sam).decision == DECISION_DENY, seconds=2)
    assert ask(beside[1], ivan).source == ANSWER_SOURCE_CACHED
    set_status(upstream[1], "user_sam", active=True)
    eventually(lambda: ask(beside[1], sam).decision == DECISION_ALLOW, seconds=2)


def test_cached_denials_are_decisions_of_their_own_and_logged_upstream(
    upstream: Pair, beside: Pair
) -> None:
    request = question("user_sam", "course:delete")
    ask_until_cached(beside[1], request)
    given = [ask(beside[1], request) for _ in range(5)]
    again = Counter(answer.decision_id for answer in given if answer.source == ANSWER_SOURCE_CACHED)
    assert again

    def arrived() -> bool:
        records = on_record(upstream[1], "course:delete", "user_sam")
        return again <= Counter(
            {record.decision_id: record.occurrences for record in records.values()}
        )

    eventually(arrived, what="the denials are in the log upstream")
    eventually(lambda: metric(beside[0], "pdp_sidecar_unreported_bytes") == 0)
    records = on_record(upstream[1], "course:delete", "user_sam")
    token = hashlib.sha256(request.actor_token.encode()).hexdigest()
    for decision_id in again:
        record = records[decision_id]
        assert record.source == ANSWER_SOURCE_CACHED
        assert record.reported_by == "anonymous"
        assert record.caller == "anonymous"
        assert record.decision == DECISION_DENY
        assert record.resource.id == "algebra"
        assert record.actor.organization_id == ORGANIZATION
        assert token.startswith(record.token_fingerprint)


def test_a_batch_is_cached_as_a_whole_and_its_denials_are_new(upstream: Pair, beside: Pair) -> None:
    token = token_of("user_sam", organization_id=ORGANIZATION)
    items = [
        CheckItem(permission=permission, resource=resource)
        for permission, resource in (("course:view", ALGEBRA), ("course:edit", BIOLOGY))
    ]
    request = BatchCheckRequest(actor_token=token, items=items)

    def batch() -> BatchCheckResponse:
        answer: BatchCheckResponse = beside[1].decision.BatchCheck(request, timeout=20)
        return answer

    first = batch()
    eventually(lambda: batch().results[0].source == ANSWER_SOURCE_CACHED)
    again = batch()
    assert [result.source for result in again.results] == [ANSWER_SOURCE_CACHED] * 2
    assert [result.decision for result in again.results] == [DECISION_ALLOW, DECISION_DENY]
    assert again.results[1].decision_id not in {result.decision_id for result in first.results}
    set_status(upstream[1], "user_sam", active=False)
    denied = [DECISION_DENY, DECISION_DENY]
    eventually(lambda: [result.decision for result in batch().results] == denied, seconds=2)
    set_status(upstream[1], "user_sam", active=True)
    eventually(lambda: batch().results[0].decision == DECISION_ALLOW, seconds=2)


def test_an_answer_is_given_to_nothing_but_the_question_that_it_answered(
    beside: Pair,
) -> None:
    """Each part of a question counts: who swaps one gets an answer of their own."""
    stubs = beside[1]
    context = Struct()
    context.update({"ip": "10.0.0.1"})
    base = question("user_ivan", "course:edit")
    others = []
    for field, value in (
        ("actor_token", token_of("user_sam", organization_id=ORGANIZATION)),
        ("actor_token", base.actor_token[:-1]),
        ("permission", "course:delete"),
        ("resource", BIOLOGY),
        ("resource", Resource(type="lesson", id="algebra")),
        ("resource", Resource(type="course", id="algebra", organization_id="org_other")),
        ("context", context),
        ("at_least_revision", 1),
    ):
        other = CheckRequest()
        other.CopyFrom(base)
        other.ClearField(field)
        other.MergeFrom(CheckRequest(**{field: value}))
        others.append(other)
    ask_until_cached(stubs, base)
    for other in others:
        assert ask(stubs, other).source == ANSWER_SOURCE_UNSPECIFIED, other
    item = CheckItem(permission=base.permission, resource=base.resource)
    batch = BatchCheckRequest(actor_token=base.actor_token, items=[item])
    assert stubs.decision.BatchCheck(batch, timeout=20).results[0].source == 0


def test_a_refused_token_is_asked_about_every_time(beside: Pair) -> None:
    request = CheckRequest(actor_token="forged", permission="course:view")
    for _ in range(3):
        answer = ask(beside[1], request)
        assert (answer.decision, answer.source) == (DECISION_DENY, ANSWER_SOURCE_UNSPECIFIED)


def test_equal_questions_at_the_same_time_are_one_question_to_upstream(
    upstream: Pair, beside: Pair
) -> None:
    """F20."""
    request = question("user_ada", "course:edit")
    raw = request.SerializeToString()
    asked = metric(upstream[0], "pdp_rpc_seconds_count", method="Check")
    barrier = threading.Barrier(20)

    def ten(_: int) -> list[bytes]:
        call = beside[1].channel.unary_unary(CHECK)
        barrier.wait(20)
        futures = [call.future(raw, timeout=20) for _ in range(10)]
        return [future.result() for future in futures]

    with ThreadPoolExecutor(20) as pool:
        answers = [
            CheckResponse.FromString(raw) for part in pool.map(ten, range(20)) for raw in part
        ]
    assert len(answers) == 200
    assert all(answer.decision == DECISION_ALLOW for answer in answers)
    assert metric(upstream[0], "pdp_rpc_seconds_count", method="Check") - asked <= 2


def test_calls_that_never_go_on_keep_nobody_from_asking_for_long(beside: Pair) -> None:
    """A local client can occupy a thread by headers alone, or by asking for reflection."""
    never: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    request = question("user_held")
    ask(beside[1], request)
    with beside[0].channel() as channel:
        paths = (CHECK, "/grpc.health.v1.Health/Check", reflection) * 15
        held = [channel.stream_stream(path)(iter(never.get, None)) for path in paths]
        try:
            eventually(lambda: all(call.is_active() for call in held))
            ask(beside[1], request)
        finally:
            for _ in held:
                never.put(b"")


def test_what_upstream_refuses_comes_through_as_it_is(upstream: Pair, beside: Pair) -> None:
    token = token_of("user_sam")
    too_many = [CheckItem(permission="course:view")] * 1001
    deep = question()
    deep.context.update({"a": "x" * 66_000})
    requests = [
        (CHECK, CheckRequest(actor_token=token).SerializeToString()),
        (CHECK, question(resource=Resource(type="Course!", id="1")).SerializeToString()),
        (CHECK, deep.SerializeToString()),
        (CHECK, b"\xff\xff\xff"),
        (CHECK, b"\x00" * 200_000),
        (CHECK.replace("/Check", "/BatchCheck"), b""),
        (
            CHECK.replace("/Check", "/BatchCheck"),
            BatchCheckRequest(actor_token=token, items=too_many).SerializeToString(),
        ),
    ]
    for path, raw in requests:
        said = []
        for stubs in (upstream[1], beside[1]):
            error = rpc_error(functools.partial(stubs.channel.unary_unary(path), raw, timeout=20))
            status = rpc_status.from_call(error)
            assert status is not None
            bad_request = error_details_pb2.BadRequest()
            for detail in status.details:
                detail.Unpack(bad_request)
            said.append((error.code(), status.message, error_info(error), bad_request))
        assert said[0] == said[1], (path, raw[:20])
        assert said[0][0] in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}


# --- cut off -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["blackhole", "mute"])
def test_a_sidecar_that_is_cut_off_serves_nothing_from_its_cache_after_a_second(
    proxy: Proxy, cut_off: Pair, how: str
) -> None:
    """F24: nothing arrives any more. F26: nothing comes back any more, without an error."""
    sidecar, stubs = cut_off
    request = question()
    ask_until_cached(stubs, request)
    getattr(proxy, how)()
    cut_at = time.monotonic()
    last_allow = cut_at
    while time.monotonic() < cut_at + 1.8:
        asked_at = time.monotonic()
        try:
            assert ask(stubs, request).source == ANSWER_SOURCE_CACHED
            last_allow = asked_at
        except grpc.RpcError as error:
            FAULTS["F24"].expect(error)
        time.sleep(0.002)
    assert last_allow - cut_at <= FAULTS["F24"].seconds()
    assert not sidecar.is_live()
    assert "the change stream is not live" in sidecar.http("/readyz")[1]
    assert sidecar.http("/healthz")[0] == 200
    proxy.forward()
    within = FAULTS["F24"].healed_within()
    eventually(sidecar.is_live, seconds=within, what="the sidecar is ready by itself")
    ask_until_cached(stubs, request)


def test_the_only_upstream_is_reached_again_past_a_connection_that_died_in_silence(
    proxy: Proxy, cut_off: Pair
) -> None:
    """F26, as a firewall does it that forgets connections: only new ones get through."""
    ask_until_cached(cut_off[1], question())
    proxy.forget()
    within = FAULTS["F26"].healed_within()
    eventually(lambda: _answers(cut_off[1], question("user_ivan")), seconds=within)


def _answers(stubs: Stubs, request: CheckRequest) -> bool:
    try:
        return ask(stubs, request).decision == DECISION_ALLOW
    except grpc.RpcError as error:
        assert error.code() is UNAVAILABLE
        return False


def test_a_sidecar_that_was_paused_does_not_answer_from_before_its_pause(
    upstream: Pair, cut_off: Pair
) -> None:
    """F6."""
    sidecar, stubs = cut_off
    request = question()
    ask_until_cached(stubs, request)
    sidecar.signal(signal.SIGSTOP)
    try:
        first = stubs.channel.unary_unary(CHECK).future(request.SerializeToString(), timeout=20)
        set_status(upstream[1], "user_sam", active=False)
        time.sleep(1.1)  # for as long as a lease lasts: this is what it is about
    finally:
        sidecar.signal(signal.SIGCONT)
    try:
        assert CheckResponse.FromString(first.result()).decision == DECISION_DENY
    except grpc.RpcError as error:
        assert error.code() is UNAVAILABLE
    finally:
        set_status(upstream[1], "user_sam", active=True)
        eventually(lambda: _answers(stubs, request), what="others may go on with that user")


def test_a_fail_open_window_ends_and_its_answers_are_marked(
    proxy: Proxy, upstream: Pair, cut_off: Pair
) -> None:
    sidecar, stubs = cut_off
    lesson = question("user_sam", "lesson:view", Resource(type="lesson", id="algebra-1"))
    denied = question("user_nobody", "lesson:view", Resource(type="lesson", id="algebra-1"))
    other = question("user_sam", "course:view")
    for request in (lesson, denied, other):
        ask_until_cached(stubs, request)
    counted = metric(sidecar, "pdp_sidecar_stayed_open")
    proxy.blackhole()
    eventually(lambda: not sidecar.is_live())
    ended_at = time.monotonic()
    for request in (denied, other):
        refused = rpc_error(lambda request=request: ask(stubs, request))
        assert error_info(refused).reason == "UPSTREAM_UNAVAILABLE"
    open_answers = []
    while time.monotonic() < ended_at + 2.5:
        asked_at = time.monotonic()
        try:
            answer = ask(stubs, lesson)
        except grpc.RpcError as error:
            assert error_info(error).reason == "UPSTREAM_UNAVAILABLE"
            assert asked_at > ended_at + 1, "it ended too early"
            break
        open_answers.append(answer)
        assert answer.source == ANSWER_SOURCE_STAYED_OPEN
        assert "cut off" in answer.message
        assert not answer.HasField("reusable_until")
        assert asked_at <= ended_at + 1.5
    else:
        pytest.fail("the fail-open window did not end")
    assert open_answers
    assert metric(sidecar, "pdp_sidecar_stayed_open") == counted + len(open_answers)
    proxy.forward()
    ids = {open_answer.decision_id for open_answer in open_answers}
    assert len(ids) == len(open_answers)

    def arrived() -> bool:
        return ids <= on_record(upstream[1], "lesson:view", "user_sam").keys()

    eventually(arrived, what="the fail-open decisions are in the log upstream")
    records = on_record(upstream[1], "lesson:view", "user_sam")
    for decision_id in ids:
        assert records[decision_id].source == ANSWER_SOURCE_STAYED_OPEN
        assert records[decision_id].decision == DECISION_ALLOW


# --- several upstreams, and the way to them ------------------------------------------------------


def test_the_next_upstream_takes_over_without_a_failed_check(tmp_path: Path) -> None:
    for name in ("one", "two", "sidecar"):
        (tmp_path / name).mkdir()
    database = f"sqlite:///{tmp_path / 'shared.db'}"
    with (
        running_server(tmp_path / "one", POLICY, DATABASE_URL=database) as (one, _),
        running_server(tmp_path / "two", DATABASE_URL=database) as (two, at_two),
        running_sidecar(tmp_path / "sidecar", one.port, two.port) as (sidecar, stubs),
    ):
        kept = question("user_ivan")
        ask_until_cached(stubs, kept)
        failed: list[grpc.RpcError] = []
        stopping = threading.Event()

        def keep_asking() -> None:
            for number in range(10**6):
                if stopping.is_set():
                    return
                try:
                    # No two are equal: each goes upstream.
                    request = question()
                    request.context.update({"number": number})
                    ask(stubs, request)
                except grpc.RpcError as error:
                    failed.append(error)

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(keep_asking) for _ in range(2)]
            one.kill()
            since = Stopwatch()
            eventually(lambda: metric(two, "pdp_watchers") == 1, seconds=5)
            followed_in = since.seconds
            assert ask(stubs, kept).source == ANSWER_SOURCE_CACHED, "it did not resync"
            stopping.set()
            for each in asking:
                each.result()
        assert not failed
        assert followed_in < 2
        set_status(at_two, "user_ivan", active=False)
        eventually(lambda: ask(stubs, kept).decision == DECISION_DENY, seconds=2)
        assert sidecar.is_live()


def test_a_black_hole_in_front_of_the_first_upstream_is_left_within_a_second(
    proxy: Proxy, upstream: Pair, tmp_path: Path
) -> None:
    ports = (proxy.port, upstream[0].port)
    with running_sidecar(tmp_path, *ports, DEADLINE_SECONDS="0.25") as (sidecar, stubs):
        ask_until_cached(stubs, question())
        proxy.blackhole()
        since = Stopwatch()
        eventually(lambda: _answers(stubs, question("user_ada")), seconds=5)
        # The last question to the black hole is asked within the bound, and takes its deadline.
        assert since.seconds < FAULTS["F26"].seconds() + 0.25 + 0.25
        eventually(sidecar.is_live, seconds=5)
        proxy.forward()


EXPIRY = "pdp_certificate_expiry_timestamp_seconds"


def test_a_sidecar_shows_its_certificate_and_says_whose_fault_a_refusal_is(
    tmp_path: Path,
) -> None:
    """An error about the sidecar's credentials does not reach local callers as one about theirs."""
    authority = Authority("one")
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    names = {"server": address}
    for name in ("sidecar", "auditor", "stranger"):
        names[name] = x509.UniformResourceIdentifier(f"spiffe://example.test/{name}")
    issued = {name: authority.issue(of, client=of is not address) for name, of in names.items()}

    def files(name: str) -> dict[str, str]:
        (tmp_path / name).mkdir()
        for suffix, content in zip(("key", "pem"), issued[name], strict=True):
            (tmp_path / f"{name}.{suffix}").write_bytes(content)
        return {
            "private_key_file": str(tmp_path / f"{name}.key"),
            "certificate_file": str(tmp_path / f"{name}.pem"),
        }

    ca = str(tmp_path / "ca.pem")
    callers = [
        {"name": "beside", "spiffe_id": names["sidecar"].value, "may": ["decide", "report"]},
        {"name": "auditor", "spiffe_id": names["auditor"].value, "may": ["audit"]},
    ]
    tls = {**files("server"), "client_ca_file": ca}
    server = ServerProcess(tmp_path / "server", {"TLS": tls, "CALLERS": callers})
    server.credentials = grpc.ssl_channel_credentials(authority.certificate, *issued["auditor"])
    local = [{"name": "courses", "api_key_sha256": digest("local")}]
    theirs = (("authorization", "Bearer local"),)
    request = question("user_nobody")
    server.start()
    try:
        with running_sidecar(
            tmp_path / "sidecar",
            server.port,
            UPSTREAM_TLS={**files("sidecar"), "ca_file": ca},
            CALLERS=local,
        ) as (sidecar, stubs):

            def is_cached() -> bool:
                answer = stubs.decision.Check(request, metadata=theirs, timeout=20)
                return bool(answer.source == ANSWER_SOURCE_CACHED)

            eventually(is_cached)
            error = rpc_error(lambda: ask(stubs, request))
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            for process, certificate in (
                (server, "server"),
                (server, "client_ca"),
                (sidecar, "upstream_client"),
                (sidecar, "upstream_ca"),
            ):
                ends = metric(process, EXPIRY, certificate=certificate)
                assert time.time() < ends < time.time() + 3600
            assert sidecar.stop() == 0
        # It has ended, and so everything that it had logged is here.
        with server.channel() as channel:
            listing = stubs_on(channel).audit.ListDecisions(ListDecisionsRequest(), timeout=10)
        reported = [
            decision for decision in listing.decisions if decision.source == ANSWER_SOURCE_CACHED
        ]
        assert {(record.reported_by, record.caller) for record in reported} == {
            ("beside", "courses")
        }
        with running_sidecar(
            tmp_path / "stranger",
            server.port,
            ready=False,
            UPSTREAM_TLS={**files("stranger"), "ca_file": ca},
            API_KEY="of somebody else".replace(" ", "-"),
        ) as (sidecar, stubs):
            for _ in range(3):
                error = rpc_error(lambda: ask(stubs, request))
                assert error.code() is UNAVAILABLE
                assert error_info(error).reason == "UPSTREAM_REFUSED"
            assert not sidecar.is_live()
            lines = [line for line in sidecar.log().splitlines() if "upstream_refuses_the" in line]
            services = [json.loads(line)["service"] for line in lines]
            assert "pdpapi.v1.PolicyDecisionService" in services
            assert len(set(services)) == len(services)
            assert "of-somebody-else" not in sidecar.log()
            assert request.actor_token not in sidecar.log()
    finally:
        server.stop()


# --- the process -------------------------------------------------------------------------------


def test_denials_survive_the_end_of_sidecar_and_server(tmp_path: Path) -> None:
    """The server is gone, then the sidecar is killed; what it answered is on its disk."""
    for name in ("server", "sidecar"):
        (tmp_path / name).mkdir()
    with (
        running_server(tmp_path / "server", POLICY) as (server, at_server),
        running_sidecar(tmp_path / "sidecar", server.port) as (sidecar, stubs),
    ):
        request = question("user_sam", "course:delete")
        ask_until_cached(stubs, request)
        server.kill()
        given = set()
        while answers := _cached(stubs, request):
            given |= answers
        sidecar.kill()
        assert given, "within its lease it gave the answer again"
        server.start()
        sidecar.start()

        def arrived() -> bool:
            return given <= on_record(at_server, "course:delete", "user_sam").keys()

        eventually(arrived, what="the denials are in the log upstream")
        assert sidecar.stop() == 0


def _cached(stubs: Stubs, request: CheckRequest) -> set[str]:
    """The id of a cached answer, if there is one now."""
    try:
        answer = stubs.decision.Check(request, timeout=20)
    except grpc.RpcError as error:
        assert error.code() is UNAVAILABLE
        return set()
    assert answer.source == ANSWER_SOURCE_CACHED
    return {answer.decision_id}


def test_it_starts_without_upstream_and_on_a_socket_that_was_left_behind(tmp_path: Path) -> None:
    for name in ("server", "sidecar"):
        (tmp_path / name).mkdir()
    server = ServerProcess(tmp_path / "server")
    with running_sidecar(tmp_path / "sidecar", server.port, ready=False) as (sidecar, stubs):
        health = health_pb2_grpc.HealthStub(stubs.channel)

        def serves() -> bool:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=5)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        error = rpc_error(lambda: ask(stubs, question()))
        assert error_info(error).reason == "UPSTREAM_UNAVAILABLE"
        assert not serves()
        assert sidecar.http("/healthz")[0] == 200
        server.start()
        try:
            eventually(serves, what="it is ready by itself")
            sidecar.kill()
            socket_file = tmp_path / "sidecar" / "pdp.sock"
            assert socket_file.exists()
            sidecar.start()
            assert socket_file.stat().st_mode & 0o777 == 0o660
            eventually(lambda: _answers_at_all(stubs), what="clients find the new one")
            assert sidecar.stop() == 0
            assert not socket_file.exists()
        finally:
            server.stop()


def _answers_at_all(stubs: Stubs) -> bool:
    try:
        return bool(ask(stubs, question()).decision_id)
    except grpc.RpcError as error:
        assert error.code() is UNAVAILABLE
        return False
