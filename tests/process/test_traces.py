"""Traces: a span for each RPC, which continues the client's trace and names its decisions."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pdpapi.v1.core_pb2 import Resource
from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, CheckItem, CheckRequest, CheckResponse

from tests.kit import soak
from tests.kit.server import ServerProcess, Stubs, running_server, stubs_on, token_of
from tests.kit.sidecar import SidecarProcess
from tests.kit.siem.collector import Collector, running_trace_collector
from tests.kit.siem.receivers import http_receiver
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually

POLICY = """
version: 1
permissions: {course:view: ""}
roles: {READER: {allow: [course:view]}}
users: [{id: user_1}]
grants: [{role: READER, user: user_1}]
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_trace_collector() as running:
        yield running


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector
) -> Iterator[tuple[ServerProcess, Stubs]]:
    directory = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with running_server(directory, POLICY, TRACES_URL=collector.receiver.url) as running:
            yield running


def check(stubs: Stubs, traceparent: str = "") -> CheckResponse:
    request = CheckRequest(
        actor_token=token_of("user_1"),
        permission="course:view",
        resource=Resource(type="course", id="secret-course"),
    )
    metadata = (("traceparent", traceparent),) if traceparent else ()
    answer: CheckResponse = stubs.decision.Check(request, metadata=metadata, timeout=10)
    return answer


def attributes(span: Span) -> dict[str, object]:
    """Of a span; a list of texts, or a text."""
    return {
        each.key: [value.string_value for value in each.value.array_value.values]
        or each.value.string_value
        for each in span.attributes
    }


def span_of(collector: Collector, decision_id: str) -> Span:
    """The span that names this decision."""
    found: list[Span] = []

    def is_there() -> bool:
        found[:] = [
            span
            for span in collector.spans
            if decision_id in attributes(span).get("pdp.decision_ids", ())
        ]
        return bool(found)

    eventually(is_there, seconds=30, what=f"a span of {decision_id}")
    return found[0]


@pytest.mark.soak
def test_a_span_continues_the_trace_of_its_own_client_also_among_many(
    served: tuple[ServerProcess, Stubs], collector: Collector
) -> None:
    _, stubs = served
    traces = [f"{number:032x}" for number in range(1, soak.count(100, sample=40) + 1)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda trace: check(stubs, f"00-{trace}-{PARENT}-01"), traces))
    for trace, answer in zip(traces, answers, strict=True):
        span = span_of(collector, answer.decision_id)
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, PARENT)
        assert span.kind == Span.SPAN_KIND_SERVER
        assert attributes(span) == {
            "rpc.system.name": "grpc",
            "rpc.method": "pdpapi.v1.PolicyDecisionService/Check",
            "rpc.response.status_code": "OK",
            "pdp.decision_ids": [answer.decision_id],
        }


@pytest.mark.parametrize(
    "traceparent",
    ["", "00-0-0-01", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", "x" * 5_000],
)
def test_an_invalid_traceparent_begins_a_new_trace(
    served: tuple[ServerProcess, Stubs], collector: Collector, traceparent: str
) -> None:
    span = span_of(collector, check(served[1], traceparent).decision_id)
    assert span.parent_span_id == b""
    assert span.trace_id.hex() != TRACE


def test_a_malformed_state_of_a_trace_is_not_quoted_in_the_log(
    served: tuple[ServerProcess, Stubs],
) -> None:
    server, stubs = served
    call = stubs.decision.Check
    for state in ("of-a-stranger;", "of-a-stranger" + "x" * 7_000):
        metadata = (("traceparent", f"00-{TRACE}-{PARENT}-00"), ("tracestate", state))
        call(CheckRequest(permission="course:view"), metadata=metadata, timeout=10)
    assert "of-a-stranger" not in server.log()
    assert "tracestate" not in server.log()


def test_a_client_that_does_not_sample_has_no_span(
    served: tuple[ServerProcess, Stubs], collector: Collector
) -> None:
    stubs = served[1]
    unsampled = check(stubs, f"00-{TRACE}-{PARENT}-00").decision_id
    span_of(collector, check(stubs).decision_id)
    named = [attributes(span).get("pdp.decision_ids") for span in collector.spans]
    assert [unsampled] not in named


def test_spans_hold_no_token_no_attribute_and_no_resource(
    served: tuple[ServerProcess, Stubs], collector: Collector
) -> None:
    stubs = served[1]
    token = token_of("user_1")
    items = [CheckItem(permission="course:view"), CheckItem(permission="course:secret-action")]
    for item in items:
        item.context["secret-key"] = "secret-value"
    request = BatchCheckRequest(actor_token=token, items=items)
    results = stubs.decision.BatchCheck(request, timeout=10).results
    span = span_of(collector, results[0].decision_id)
    ids = [result.decision_id for result in results]
    assert attributes(span)["pdp.decision_ids"] == ids
    with pytest.raises(grpc.RpcError):
        stubs.decision.Check(CheckRequest(actor_token=token, permission="x" * 5_000), timeout=10)
    eventually(
        lambda: any(
            attributes(span)["rpc.response.status_code"] == "INVALID_ARGUMENT"
            for span in collector.spans
        ),
        seconds=30,
    )
    for secret in (token, token.split(".")[1], "secret-", "user_1", "x" * 100):
        assert secret.encode() not in collector.raw


def test_a_sidecar_passes_the_trace_on(
    served: tuple[ServerProcess, Stubs], tmp_path: Path, collector: Collector
) -> None:
    server, _ = served
    settings = {"TRACES_URL": collector.receiver.url}
    sidecar = SidecarProcess(tmp_path, settings, upstreams=[server.port])
    sidecar.environment["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    sidecar.start()
    try:
        with sidecar.channel() as channel:
            stubs = stubs_on(channel)
            ids: list[str] = []

            def is_cached() -> bool:
                ids.append(check(stubs, f"00-{TRACE}-{PARENT}-01").decision_id)
                return len(set(ids)) < len(ids)

            eventually(is_cached, seconds=30)
        decided = len(set(ids))

        def spans() -> list[Span]:
            return [span for span in collector.spans if span.trace_id.hex() == TRACE]

        eventually(lambda: len(spans()) == len(ids) + decided, seconds=30)
    finally:
        assert sidecar.stop() == 0
    assert collector.services == {"pdp", "pdp-sidecar"}
    of_sidecar = [span for span in spans() if span.parent_span_id.hex() == PARENT]
    of_server = [span for span in spans() if span not in of_sidecar]
    assert (len(of_sidecar), len(of_server)) == (len(ids), decided)
    of_sidecar_ids = {span.span_id for span in of_sidecar}
    assert len({span.parent_span_id for span in of_server} & of_sidecar_ids) == decided


def test_a_collector_that_hangs_delays_neither_answers_nor_the_end(tmp_path: Path) -> None:
    with http_receiver(lambda _: []) as silent:
        ends = threading.Event()
        silent.answer = lambda _: 503 if ends.wait(60) else 200
        with running_server(tmp_path, POLICY, TRACES_URL=silent.url) as (server, stubs):
            for _ in range(20):
                assert check(stubs).decision_id
            watch = Stopwatch()
            assert server.stop() == 0
            assert watch.seconds < 20
        ends.set()


def test_without_the_setting_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys, pdp.process.app, pdp.sidecar.app, pdp.siem.app;"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
