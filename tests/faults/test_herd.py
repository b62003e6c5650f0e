"""All clients ask at once: those beyond the bound are asked to retry, and succeed later."""

import signal
from collections import Counter
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pdpapi.v1.decision_service_pb2_grpc import PolicyDecisionServiceStub

from tests.kit.faults.load import ask_once, question
from tests.kit.faults.table import FAULTS, Fault
from tests.kit.school import POLICY
from tests.kit.server import running_server
from tests.kit.waiting import eventually
from tests.kit.wire.errors import reason_of_error

PEERS = 200
RPCS_MAX = 32
"""Requests of one thread."""
ALONE = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
"""A channel with a connection of its own."""


def test_of_a_herd_as_many_as_fit_are_answered_and_the_rest_get_a_time_to_retry(
    tmp_path: Path,
) -> None:
    fault = FAULTS["F21"]
    # Denials, which wait for the disk: allows from memory would end as fast as they come.
    denied = question(permission="course:edit")
    with running_server(tmp_path, POLICY, THREADS="1") as (server, stubs):
        channels = [grpc.insecure_channel(f"127.0.0.1:{server.port}", ALONE) for _ in range(PEERS)]
        for channel in channels:
            grpc.channel_ready_future(channel).result(20)
        server.signal(signal.SIGSTOP)
        try:
            checks = [PolicyDecisionServiceStub(channel).Check for channel in channels]
            calls = [check.future(denied) for check in checks]
            eventually(lambda: unread(server.port) == PEERS, what="all of them ask")
        finally:
            server.signal(signal.SIGCONT)
        seen = Counter(outcome(fault, call) for call in calls)
        eventually(
            lambda: ask_once(stubs, question()).allowed, seconds=fault.healed_within(), what="room"
        )
        for channel in channels:
            channel.close()
    assert "OVERLOADED" in fault.reasons
    assert set(seen) == {"OK", "OVERLOADED"}
    assert RPCS_MAX <= seen["OK"] <= 2 * RPCS_MAX


def outcome(fault: Fault, call: grpc.Future) -> str:
    error = call.exception(timeout=20)
    if error is None:
        return "OK"
    assert error.code() in fault.codes, error
    reason = reason_of_error(error)
    if reason:
        retry = error_details_pb2.RetryInfo()
        assert rpc_status.from_call(error).details[-1].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() > 0
    return reason


def unread(port: int) -> int:
    """How many connections to a port hold bytes that its process has not read."""
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table]
    return sum(
        1
        for line in lines
        if line[1].endswith(f":{port:04X}") and line[3] == "01" and line[4].split(":")[1] > "0" * 8
    )
