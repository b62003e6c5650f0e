"""Asking a real server whose disk may be slow."""

import time

import grpc
from pdpapi.v1.core_pb2 import DecisionReason
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit.server import Stubs

PATIENCE_SECONDS = 10
NOT_ON_RECORD = "the decision could not be recorded in time"


def reason_on_record(stubs: Stubs, request: CheckRequest) -> str:
    """The reason of the decision, e.g. `ACTOR_UNKNOWN`.

    Where others keep the disk busy a denial cannot be put on record in time. That is UNAVAILABLE,
    which is no answer, so it is asked for again; any other error is raised.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            response = stubs.decision.Check(request, timeout=PATIENCE_SECONDS)
        except grpc.RpcError as error:
            slow = error.code() is grpc.StatusCode.UNAVAILABLE and error.details() == NOT_ON_RECORD
            if not slow or time.monotonic() > deadline:
                raise
        else:
            return DecisionReason.Name(response.reason).removeprefix("DECISION_REASON_")
