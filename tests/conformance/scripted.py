"""Answers by `clients/conformance/outcomes.json`."""

import base64
import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from pdpapi.v1.access_query_service_pb2 import (
    ListAllowedPermissionsRequest,
    ListAllowedPermissionsResponse,
)
from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, BatchCheckResponse, CheckResponse

from clients.python.tests.kit.answerer import allowed, status


class Script:
    """The answers of a scripted server.

    Call number i of one case and one `context.run` gets answer number i, later calls get the last
    one. `calls:<case>` gets an allow whose revision is the number of calls."""

    def __init__(self, cases: list[Mapping[str, Any]]) -> None:
        self._answers = {case["name"]: case["answers"] for case in cases}
        self._calls: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def answer(self, request: Message, context: grpc.ServicerContext) -> Message | bytes:
        asked = request.items[0] if isinstance(request, BatchCheckRequest) else request
        run = str(asked.context["run"]) if "run" in asked.context else ""
        if isinstance(request, ListAllowedPermissionsRequest):
            what, name = request.resources[0].type, request.resources[0].id
        else:
            what, _, name = asked.permission.partition(":")
        if what == "calls":
            return allowed(revision=self._calls.get((name, run), 0))
        if what != "case" or name not in self._answers:
            _abort(context, {"code": "NOT_FOUND", "message": f"no case {what}:{name}"})
        with self._lock:
            index = self._calls.get((name, run), 0)
            self._calls[name, run] = index + 1
        said = self._answers[name][min(index, len(self._answers[name]) - 1)]
        time.sleep(said.get("delay_ms", 0) / 1000)
        if "status" in said:
            text = json.dumps(said["status"]).replace("{token}", request.actor_token)
            _abort(context, json.loads(text))
        if "raw" in said:
            return base64.b64decode(said["raw"])
        if "batch" in said:
            return ParseDict(said["batch"], BatchCheckResponse())
        if "permissions" in said:
            return ParseDict(said["permissions"], ListAllowedPermissionsResponse())
        return ParseDict(said["check"], CheckResponse())


def _abort(context: grpc.ServicerContext, said: Mapping[str, Any]) -> None:
    details: list[Message] = []
    if "reason" in said:
        details.append(error_details_pb2.ErrorInfo(reason=said["reason"], domain="pdpapi.v1"))
    if "violations" in said:
        details.append(error_details_pb2.BadRequest(field_violations=said["violations"]))
    context.abort_with_status(status(grpc.StatusCode[said["code"]], said["message"], *details))
