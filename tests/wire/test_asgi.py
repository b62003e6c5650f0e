"""gRPC as an ASGI application: framing, statuses, and what is answered at once."""

import asyncio
import base64
import hashlib
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from pdpapi.v1.decision_service_pb2 import CheckRequest, CheckResponse

from pdp.errors import AlreadyExists, AuditUnavailable, MustWait
from pdp.settings import CallerSettings, Settings
from pdp.wire.asgi import AT_ONCE_BYTES_MAX, AsgiDoor
from pdp.wire.callers import Caller
from pdp.wire.methods import Method, Soon, StreamMethod
from tests.wire.test_callers import SPIFFE, certificate, uri

BYTES_MAX = 100_000
PATH = "/pdpapi.v1.PolicyDecisionService/Check"
SERVICE = "pdpapi.v1.PolicyDecisionService"
OK, INVALID, NOT_FOUND, DENIED, EXHAUSTED = 0, 3, 5, 7, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16
KEY = "pdp_key"


@dataclass
class Response:
    """What came back over HTTP."""

    http_status: int
    headers: dict[bytes, bytes]
    body: bytes
    trailers: dict[bytes, bytes]

    @property
    def code(self) -> int:
        """The gRPC status: in trailers after a body, in the headers of a response without one."""
        places = (self.headers, self.trailers)
        [said] = [place[b"grpc-status"] for place in places if b"grpc-status" in place]
        return int(said)

    def details(self) -> status_pb2.Status:
        encoded = self.headers[b"grpc-status-details-bin"]
        padded = encoded + b"=" * (-len(encoded) % 4)
        return status_pb2.Status.FromString(base64.b64decode(padded, validate=True))

    def reason(self) -> str:
        info = error_details_pb2.ErrorInfo()
        assert self.details().details[0].Unpack(info)
        return info.reason


def echo(request: CheckRequest, _: Caller) -> CheckResponse:
    return CheckResponse(message=request.permission)


def door_of(
    answer: Callable[..., Any] = echo,
    at_once: Callable[..., Soon] | None = None,
    **settings: Any,
) -> AsgiDoor:
    method = Method(SERVICE, "Check", "decide", CheckRequest, answer, BYTES_MAX, at_once)
    values = {
        "issuers": [{"issuer": "https://clerk.example.test"}],
        "door": "envoy",
        "threads": 2,
        **settings,
    }
    return AsgiDoor(Settings(**values), [method], lambda *_: None)


async def exchange(
    door: AsgiDoor,
    *chunks: bytes,
    path: str = PATH,
    query: bytes = b"",
    verb: str = "POST",
    headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/grpc"),),
) -> tuple[Response, int]:
    """The response, and how many chunks were taken for it."""
    sent: list[dict[str, Any]] = []
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        if taken > len(chunks):
            return {"type": "http.disconnect"}
        return {
            "type": "http.request",
            "body": chunks[taken - 1],
            "more_body": taken < len(chunks),
        }

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {
        "type": "http",
        "method": verb,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": list(headers),
    }
    await door(scope, receive, send)
    if not sent:
        return Response(0, {}, b"", {}), taken
    types = [event["type"] for event in sent]
    trailers = {}
    if sent[0].get("trailers"):
        assert types[-1] == "http.response.trailers"
        trailers = dict(sent[-1]["headers"])
    body = b"".join(e.get("body", b"") for e in sent if e["type"] == "http.response.body")
    return Response(sent[0]["status"], dict(sent[0]["headers"]), body, trailers), taken


def post(door: AsgiDoor, *chunks: bytes, **parts: Any) -> Response:
    return asyncio.run(exchange(door, *chunks, **parts))[0]


def framed(message: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(message)) + message


HELLO = framed(CheckRequest(permission="course:view").SerializeToString())


def test_a_message_is_answered_by_a_message_and_trailers() -> None:
    response = post(door_of(), HELLO)
    assert response.http_status == 200
    assert response.headers[b"content-type"] == b"application/grpc"
    assert response.code == OK
    assert response.body[:1] == b"\x00"
    assert struct.unpack(">I", response.body[1:5])[0] == len(response.body) - 5
    assert CheckResponse.FromString(response.body[5:]).message == "course:view"


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6, 7])
def test_a_message_may_come_in_any_parts(size: int) -> None:
    chunks = [HELLO[i : i + size] for i in range(0, len(HELLO), size)]
    for parts in (chunks, [*chunks, b""], [b"", *chunks]):
        assert post(door_of(), *parts).code == OK


def test_an_empty_message_is_a_message() -> None:
    assert post(door_of(), framed(b"")).code == OK


@pytest.mark.parametrize(
    "body", [b"", b"\x00", HELLO[:4], HELLO[:-1], HELLO + b"\x00", HELLO + HELLO]
)
def test_what_is_not_exactly_one_message_is_invalid(body: bytes) -> None:
    for chunks in ([body], [body, b""]):
        response = post(door_of(), *chunks)
        assert response.code == INVALID
        assert response.reason() == "REQUEST_INVALID"


@pytest.mark.parametrize("flag", [1, 2, 255])
def test_a_compressed_message_is_unimplemented(flag: int) -> None:
    response = post(door_of(), framed(b"x", flag))
    assert response.code == UNIMPLEMENTED
    assert response.headers[b"grpc-accept-encoding"] == b"identity"


def test_a_message_that_says_it_is_too_long_is_not_waited_for() -> None:
    """gRPC CVE-2023-32731 and the like: the bound holds while reading, not after."""
    start = struct.pack(">BI", 0, BYTES_MAX + 1) + b"x"
    response, taken = asyncio.run(exchange(door_of(), start, *([b"y" * 1000] * 200)))
    assert response.code == EXHAUSTED
    assert response.reason() == "LIMIT_EXCEEDED"
    assert taken == 1
    exactly = framed(CheckRequest(permission="p" * (BYTES_MAX - 4)).SerializeToString())
    assert len(exactly) == BYTES_MAX + 5
    assert post(door_of(), exactly).code == OK


def test_a_client_that_leaves_gets_nothing() -> None:
    assert asyncio.run(exchange(door_of(), HELLO[:3], b""))[0].code == INVALID
    response, _ = asyncio.run(exchange(door_of()))
    assert response.http_status == 0


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (PATH + "/", b""),
        (PATH.lower(), b""),
        ("/" + PATH, b""),
        (PATH, b"x=1"),
        (PATH.replace("Check", "%43heck"), b""),
        ("", b""),
        ("/grpc.health.v1.Health/Watch", b""),
    ],
)
def test_a_path_that_is_not_a_method_exactly_is_unimplemented(path: str, query: bytes) -> None:
    """gRPC-Go CVE-2026-33186."""
    assert post(door_of(), HELLO, path=path, query=query).code == UNIMPLEMENTED


@pytest.mark.parametrize(
    "content_type", [b"", b"text/plain", b"application/json", b"application/grpc-web"]
)
def test_what_is_not_grpc_is_an_http_error(content_type: bytes) -> None:
    assert post(door_of(), HELLO, headers=[(b"content-type", content_type)]).http_status == 415
    assert post(door_of(), HELLO, verb="GET").http_status == 415


@pytest.mark.parametrize("content_type", [b"application/grpc+proto", b"application/grpc;x=y"])
def test_grpc_may_name_its_format(content_type: bytes) -> None:
    assert post(door_of(), HELLO, headers=[(b"content-type", content_type)]).code == OK


def test_an_error_travels_in_headers_with_its_details() -> None:
    def refuse(*_: Any) -> CheckResponse:
        raise AlreadyExists("role", "100 %\nünï")

    response = post(door_of(refuse), HELLO)
    assert (response.http_status, response.body, response.trailers) == (200, b"", {})
    assert response.reason() == "ALREADY_EXISTS"
    said = response.headers[b"grpc-message"].decode("ascii")
    assert said == quote(response.details().message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    assert "%25" in said
    assert "\n" not in said


def test_a_bug_says_nothing_but_a_request_id() -> None:
    def fail(*_: Any) -> CheckResponse:
        raise KeyError("secret canary")

    response = post(door_of(fail), HELLO)
    assert response.code == INTERNAL
    assert "canary" not in str(response)
    assert response.reason() == "INTERNAL"


def test_what_is_at_hand_is_answered_on_the_loop_and_the_rest_by_threads() -> None:
    threads = []

    def at_once(request: CheckRequest, caller: Caller) -> Soon:
        threads.append(threading.current_thread())
        if request.permission == "away":
            raise MustWait
        return echo(request, caller)

    def answer(request: CheckRequest, caller: Caller) -> CheckResponse:
        threads.append(threading.current_thread())
        return echo(request, caller)

    door = door_of(answer, at_once)
    assert post(door, HELLO).code == OK
    assert threads == [threading.main_thread()]
    assert post(door, framed(CheckRequest(permission="away").SerializeToString())).code == OK
    assert threads[1] is threading.main_thread()
    assert threads[2] is not threading.main_thread()
    long = CheckRequest(permission="x" * AT_ONCE_BYTES_MAX).SerializeToString()
    assert post(door, framed(long)).code == OK
    assert threads[3] is not threading.main_thread()


def test_a_denial_is_answered_only_once_it_is_settled() -> None:
    events = []

    def at_once(request: CheckRequest, caller: Caller) -> Soon:
        async def settle() -> CheckResponse:
            await asyncio.sleep(0)
            events.append("settled")
            if request.permission == "broken":
                raise AuditUnavailable("not on record")
            return echo(request, caller)

        return settle

    door = door_of(at_once=at_once)
    assert post(door, HELLO).code == OK
    assert events == ["settled"]
    refused = post(door, framed(CheckRequest(permission="broken").SerializeToString()))
    assert refused.code == UNAVAILABLE
    assert refused.reason() == "AUDIT_UNAVAILABLE"
    assert refused.body == b""


def test_a_stranger_is_refused_before_the_rest_of_the_message_is_read() -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    door = door_of(
        callers=[
            CallerSettings(name="a", api_key_sha256=digest, may=frozenset(("audit",))),
        ]
    )
    for headers, code in (
        ([], UNAUTHENTICATED),
        ([(b"authorization", b"Bearer wrong")], UNAUTHENTICATED),
        ([(b"authorization", f"Bearer {KEY}".encode())], DENIED),
    ):
        all_headers = [(b"content-type", b"application/grpc"), *headers]
        sent = [HELLO[:7], *([b""] * 5), HELLO[7:]]
        response, taken = asyncio.run(exchange(door, *sent, headers=all_headers))
        assert response.code == code
        assert taken == 1
        assert post(door, HELLO, headers=all_headers).code == code


def test_a_client_certificate_counts_only_where_tls_asks_for_it() -> None:
    pem = certificate(uri(SPIFFE))
    said = b'Hash=00;Cert="' + quote(pem, safe="").encode() + b'"'
    header = (b"x-forwarded-client-cert", said)
    grpc_type = (b"content-type", b"application/grpc")
    tls = {"certificate_file": "a", "private_key_file": "b", "client_ca_file": "c"}
    callers = [CallerSettings(name="mesh", spiffe_id=SPIFFE)]
    door = door_of(callers=callers, tls=tls)
    assert post(door, HELLO, headers=[grpc_type, header]).code == OK
    for wrong in (
        [],
        [header, header],
        [(header[0], said + b"," + said)],
        [(header[0], b"URI=" + SPIFFE.encode())],
        [(header[0], b'Cert="' + quote(certificate(), safe="").encode() + b'"')],
    ):
        assert post(door, HELLO, headers=[grpc_type, *wrong]).code == UNAUTHENTICATED
    by_key = [CallerSettings(name="a", api_key_sha256="0" * 64)]
    assert post(door_of(callers=by_key), HELLO, headers=[grpc_type, header]).code == UNAUTHENTICATED


def test_health_says_whether_we_serve_and_knows_no_other_service() -> None:
    door = door_of()

    def health(service: str = "") -> Response:
        raw = HealthCheckRequest(service=service).SerializeToString()
        return post(door, framed(raw), path="/grpc.health.v1.Health/Check")

    serving = HealthCheckResponse.ServingStatus
    assert HealthCheckResponse.FromString(health().body[5:]).status == serving.NOT_SERVING
    door.set_serving(serving=True)
    assert HealthCheckResponse.FromString(health().body[5:]).status == serving.SERVING
    assert health("other").code == NOT_FOUND
    assert post(door, framed(b"\xff"), path="/grpc.health.v1.Health/Check").code == INVALID


def test_a_closing_door_says_so_and_waits_for_what_is_in_flight() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slowly(request: CheckRequest, caller: Caller) -> CheckResponse:
        entered.set()
        assert leave.wait(10)
        return echo(request, caller)

    door = door_of(slowly)

    async def scenario() -> None:
        slow = asyncio.create_task(exchange(door, HELLO))
        await asyncio.to_thread(entered.wait, 10)
        closing = asyncio.create_task(asyncio.to_thread(door.close, 10))
        await asyncio.to_thread(door._gate.closing.wait, 10)
        response, _ = await exchange(door, HELLO[:3], HELLO[3:])
        assert response.code == UNAVAILABLE
        assert response.reason() == "SHUTTING_DOWN"
        assert not closing.done()
        leave.set()
        assert (await slow)[0].code == OK
        await closing

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_more_requests_than_the_bound_are_refused() -> None:
    leave = threading.Event()

    def slowly(request: CheckRequest, caller: Caller) -> CheckResponse:
        assert leave.wait(10)
        return echo(request, caller)

    door = door_of(slowly, threads=1)

    async def scenario() -> None:
        slow = [asyncio.create_task(exchange(door, HELLO)) for _ in range(32)]
        await asyncio.sleep(0)
        response, _ = await exchange(door, HELLO)
        assert response.code == EXHAUSTED
        leave.set()
        assert {(await one)[0].code for one in slow} == {OK}

    asyncio.run(asyncio.wait_for(scenario(), 20))


class Nothing:
    """A feed without a word."""

    due_at = 0.0
    behind = False
    closed = 0

    def take(self) -> Sequence[bytes] | None:
        return ()

    def close(self) -> None:
        self.closed += 1


def test_a_client_that_leaves_before_its_stream_begins_keeps_no_place() -> None:
    feed = Nothing()
    method = StreamMethod(
        SERVICE, "Watch", "decide", CheckRequest, lambda *_: feed, lambda _: None, BYTES_MAX
    )
    settings = Settings(issuers=[{"issuer": "https://clerk.example.test"}])
    door = AsgiDoor(settings, [method], lambda *_: None)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": HELLO, "more_body": False}

    async def send(_: Any) -> None:
        raise ConnectionResetError

    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": method.path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/grpc")],
    }
    with pytest.raises(ConnectionResetError):
        asyncio.run(door(scope, receive, send))
    assert feed.closed == 1
