"""One caller's streams, reports and wrong keys do not take the place of another's."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pdpapi.v1.audit_service_pb2 import (
    FRAME_KIND_RECORD,
    LogFrame,
    LogPlace,
    ReportDecisionsRequest,
)
from pdpapi.v1.change_service_pb2 import WatchRequest
from pdpapi.v1.change_service_pb2_grpc import ChangeServiceStub

from tests.kit.server import ServerProcess, stubs_on
from tests.kit.sidecar import metric, running_sidecar
from tests.kit.wire.errors import error_info, rpc_error
from tests.kit.wire.tls import QUESTION, bearer, digest

GREEDY, OTHER = "pdp_key-of-the-greedy", "pdp_key-of-the-other"
CALLERS = [
    {"name": "greedy", "api_key_sha256": digest(GREEDY)},
    {"name": "other", "api_key_sha256": digest(OTHER), "may": ["decide", "report"]},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {"CALLERS": CALLERS, "REPORTS_SHARE": "5"}
    one = ServerProcess(tmp_path_factory.mktemp("shares"), settings)
    one.start()
    yield one
    one.stop()


def test_eleven_hundred_streams_of_one_caller_keep_no_sidecar_of_another_from_being_ready(
    server: ServerProcess, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        refused = streams = 0
        calls = []
        for _ in range(5):  # a connection carries 256 streams
            watch = ChangeServiceStub(stack.enter_context(server.channel())).Watch
            calls += [
                watch(WatchRequest(), metadata=bearer(GREEDY), timeout=60) for _ in range(220)
            ]
        for call in calls:
            try:
                next(call)
                streams += 1
            except grpc.RpcError as error:
                refused += 1
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert error_info(error).reason == "SHARE_EXCEEDED"
                assert error_info(error).metadata["limit"] == "streams_share"
        assert (streams, refused) == (512, 588)
        with running_sidecar(tmp_path, server.port, API_KEY=OTHER) as (sidecar, stubs):
            assert sidecar.is_live()
            assert stubs.decision.Check(QUESTION, timeout=10).decision_id
        with server.channel() as channel:  # the greedy one still has its other shares
            asked = stubs_on(channel).decision.Check(QUESTION, metadata=bearer(GREEDY), timeout=10)
            assert asked.decision_id


def test_a_caller_that_reports_more_than_its_share_gets_a_time_to_retry(
    server: ServerProcess,
) -> None:
    frames = [LogFrame(kind=FRAME_KIND_RECORD, payload=b"nonsense")] * 60
    request = ReportDecisionsRequest(
        origin="sidecar",
        log_id="0" * 32,
        start=LogPlace(segment=1, position=0, byte_offset=0, digest=bytes(32)),
        frames=frames,
    )
    with server.channel() as channel:
        audit = stubs_on(channel).audit

        def report() -> object:
            return audit.ReportDecisions(request, metadata=bearer(OTHER), timeout=10)

        report()
        error = rpc_error(report)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error_info(error).reason == "SHARE_EXCEEDED"
    assert error_info(error).metadata["limit"] == "reports_share"
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in rpc_status.from_call(error).details)
    assert 0 < retry.retry_delay.ToMilliseconds() < 3_000


def test_a_thousand_wrong_keys_are_counted_and_are_four_lines_of_the_log(
    server: ServerProcess,
) -> None:
    began = time.monotonic()
    with server.channel() as channel:
        check = stubs_on(channel).decision.Check.future
        for batch in range(20):
            calls = [
                check(QUESTION, metadata=bearer(f"pdp_canary-{batch}-{number}"), timeout=30)
                for number in range(50)
            ]
            assert {call.code() for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}
    assert metric(server, "pdp_rpc_seconds_count", code="UNAUTHENTICATED") == 1_000
    lines = [json.loads(line) for line in server.log().splitlines() if "caller_unauth" in line]
    assert time.monotonic() < began + 60, "the machine is too slow for the test"
    assert [line["refused"] for line in lines] == [1, 10, 100, 1_000]
    assert "canary" not in server.log()
