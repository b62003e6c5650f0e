"""A real gRPC server that speaks the contract and answers from a script: the guard's peer.

It deals in bytes, so that it can also say what is no answer.
"""

import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status
from pdpapi.v1 import core_pb2
from pdpapi.v1.access_query_service_pb2 import ListAllowedPermissionsRequest
from pdpapi.v1.change_service_pb2 import (
    Changed,
    ChangedKey,
    Heartbeat,
    StartOver,
    WatchRequest,
    WatchResponse,
)
from pdpapi.v1.decision_service_pb2 import (
    BatchCheckRequest,
    CheckRequest,
    CheckResponse,
)

SERVICE = "pdpapi.v1.PolicyDecisionService"
QUERIES = "pdpapi.v1.AccessQueryService"
CHANGES = "pdpapi.v1.ChangeService"

ACTOR = core_pb2.Actor(user_id="user_1", session_id="sess_1", organization_id="org_1")

Answer = Callable[[Message, grpc.ServicerContext], Message | bytes]


def allowed(**changes: object) -> CheckResponse:
    """An allow as the contract describes it, with `changes`."""
    fields: dict[str, object] = {
        "decision": core_pb2.DECISION_ALLOW,
        "reason": core_pb2.DECISION_REASON_ALLOWED_BY_RULE,
        "message": "A rule allows it.",
        "actor": ACTOR,
        "rule_id": "rule-1",
        "grant_id": "grant-1",
        "decision_id": "0198c0de-0000-7000-8000-000000000001",
        "revision": 7,
    }
    return CheckResponse(**(fields | changes))


def denied(**changes: object) -> CheckResponse:
    """A 403-kind denial, with `changes`."""
    fields: dict[str, object] = {
        "decision": core_pb2.DECISION_DENY,
        "denial_kind": core_pb2.DENIAL_KIND_FORBIDDEN,
        "reason": core_pb2.DECISION_REASON_PERMISSION_NOT_GRANTED,
        "message": "No role of the user allows it.",
        "actor": ACTOR,
        "decision_id": "0198c0de-0000-7000-8000-000000000002",
        "revision": 7,
    }
    return CheckResponse(**(fields | changes))


def reusable(**changes: object) -> CheckResponse:
    """An allow that may be cached for a minute."""
    answer = allowed(epoch="e")
    answer.reusable_for.FromSeconds(60)
    answer.MergeFrom(CheckResponse(**changes))
    return answer


def beat(
    revision: int = 7, epoch: str = "e", lease: float = 1.0, elapsed: float = 0.0
) -> WatchResponse:
    """A heartbeat; seconds."""
    heartbeat = Heartbeat(revision=revision, epoch=epoch)
    heartbeat.lease.FromNanoseconds(int(lease * 1e9))
    heartbeat.elapsed.FromNanoseconds(int(elapsed * 1e9))
    return WatchResponse(heartbeat=heartbeat)


def changed(revision: int, kind: int, *key: str) -> WatchResponse:
    """One change."""
    return WatchResponse(
        changed=Changed(revision=revision, changes=[ChangedKey(kind=kind, key=key)])
    )


def start_over(epoch: str, revision: int) -> WatchResponse:
    return WatchResponse(start_over=StartOver(epoch=epoch, revision=revision))


class Stream:
    """A change stream whose messages the test determines."""

    def __init__(self, request: WatchRequest, context: grpc.ServicerContext) -> None:
        self.request = request
        self.began = time.monotonic()
        self._context = context
        self._said: queue.SimpleQueue[WatchResponse | bytes | grpc.Status | None] = (
            queue.SimpleQueue()
        )
        context.add_callback(self.ends)

    def tell(self, *messages: WatchResponse | bytes) -> None:
        for message in messages:
            self._said.put(message)

    def lease(self, revision: int = 7, epoch: str = "e") -> None:
        """A heartbeat as an honest server sends it."""
        self.tell(beat(revision, epoch, elapsed=time.monotonic() - self.began))

    def fails(self, code: grpc.StatusCode, *details: Message) -> None:
        self._said.put(status(code, "scripted", *details))

    def ends(self) -> None:
        self._said.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (said := self._said.get()) is not None:
            if isinstance(said, WatchResponse):
                yield said.SerializeToString()
            elif isinstance(said, bytes):
                yield said
            else:
                self._context.abort_with_status(said)


@dataclass
class Answerer:
    """The next answers of the server, and the requests that it received."""

    answer: Answer = lambda _request, _context: allowed()
    requests: list[Message] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    address: str = ""
    watches: bool = False
    """Whether it has a ChangeService; if so, the streams are for the test to speak on."""
    streams: list[Stream] = field(default_factory=list)

    def says(self, *answers: Message | bytes) -> None:
        """Answers in turn, the last one again and again."""
        left = list(answers)
        self.answer = lambda _request, _context: left.pop(0) if len(left) > 1 else left[0]

    def fails(self, code: grpc.StatusCode, text: str = "scripted", *details: Message) -> None:
        """Ends every call with a status."""

        def answer(_request: Message, context: grpc.ServicerContext) -> Message:
            context.abort_with_status(status(code, text, *details))
            raise AssertionError

        self.answer = answer


def status(code: grpc.StatusCode, text: str = "scripted", *details: Message) -> grpc.Status:
    """A gRPC status that carries google.rpc details."""
    rich = status_pb2.Status(code=code_pb2.Code.Value(code.name))
    rich.message = text
    for detail in details:
        rich.details.add().Pack(detail)
    return rpc_status.to_status(rich)


def _watch(one: Answerer) -> grpc.RpcMethodHandler:
    def serve(raw: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        stream = Stream(WatchRequest.FromString(raw), context)
        one.streams.append(stream)
        yield from stream

    return grpc.unary_stream_rpc_method_handler(serve)


def _handler(one: Answerer, request_type: type[Message]) -> grpc.RpcMethodHandler:
    def serve(raw: bytes, context: grpc.ServicerContext) -> bytes:
        request = request_type.FromString(raw)
        one.requests.append(request)
        one.metadata.append(dict(context.invocation_metadata()))
        said = one.answer(request, context)
        return said if isinstance(said, bytes) else said.SerializeToString()

    return grpc.unary_unary_rpc_method_handler(serve)


def serve(
    one: Answerer, address: str, credentials: grpc.ServerCredentials | None = None
) -> grpc.Server:
    """Starts a server that answers from `one`."""
    server = grpc.server(ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0),))
    handlers = {
        "Check": _handler(one, CheckRequest),
        "BatchCheck": _handler(one, BatchCheckRequest),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    queries = {"ListAllowedPermissions": _handler(one, ListAllowedPermissionsRequest)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(QUERIES, queries),))
    if one.watches:
        watch = {"Watch": _watch(one)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(CHANGES, watch),))
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    one.address = f"{address.rpartition(':')[0]}:{port}"
    server.start()
    return server
