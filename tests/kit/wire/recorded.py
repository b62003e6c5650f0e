"""Checks by a real server whose disk may be slow."""

import time

import grpc
from pdpapi.v1.core_pb2 import DecisionReason
from pdpapi.v1.decision_service_pb2 import CheckRequest, CheckResponse

from tests.kit.server import Stubs

PATIENCE_SECONDS = 10
NOT_LOGGED = "the decision could not be recorded in time"


def check(stubs: Stubs, request: CheckRequest) -> CheckResponse:
    """The decision, once the server could log it.

    If other tests keep the disk busy, a denial cannot be logged in time. That is UNAVAILABLE,
    which is no answer, so this asks again; any other error is raised.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            response: CheckResponse = stubs.decision.Check(request, timeout=PATIENCE_SECONDS)
        except grpc.RpcError as error:
            slow = error.code() is grpc.StatusCode.UNAVAILABLE and error.details() == NOT_LOGGED
            if not slow or time.monotonic() > deadline:
                raise
        else:
            return response


def logged_reason(stubs: Stubs, request: CheckRequest) -> str:
    """The reason of the decision, e.g. `ACTOR_UNKNOWN`, once the server could log it."""
    return DecisionReason.Name(check(stubs, request).reason).removeprefix("DECISION_REASON_")
