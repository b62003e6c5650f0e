"""gRPC as an ASGI application: framing, statuses, deadlines and callers."""

import asyncio
import base64
import gzip
import hashlib
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from pdpapi.v1.decision_service_pb2 import CheckRequest, CheckResponse

from pdp.errors import AlreadyExists
from pdp.limits import METADATA_BYTES_MAX
from pdp.settings import CallerSettings
from pdp.wire import Application, Callers, Health
from pdp.wire.callers import Caller
from pdp.wire.methods import Method, StreamMethod, blocking
from tests.kit.wire.caller_certificates import SPIFFE, certificate, uri

BYTES_MAX = 100_000
PATH = "/pdpapi.v1.PolicyDecisionService/Check"
SERVICE = "pdpapi.v1.PolicyDecisionService"
OK, INVALID, DEADLINE, NOT_FOUND, DENIED, EXHAUSTED = 0, 3, 4, 5, 7, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16
KEY = "pdp_key"


@dataclass
class Response:
    """An answer over HTTP."""

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


async def echo(request: CheckRequest, _: Caller) -> CheckResponse:
    return CheckResponse(message=request.permission)


def application_of(
    answer: Callable[..., Any] = echo,
    callers: Sequence[CallerSettings] = (),
    rpcs_max: int = 64,
    health: Health | None = None,
) -> Application:
    method = Method(SERVICE, "Check", "decide", CheckRequest, answer, BYTES_MAX)
    methods = [method, *(health or Health()).methods()]
    return Application(
        Callers(callers), methods, lambda *_: None, rpcs_max=rpcs_max, streams_share=512
    )


async def exchange(
    application: Application,
    *chunks: bytes,
    path: str = PATH,
    query: bytes = b"",
    verb: str = "POST",
    headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/grpc"),),
    tls: dict[str, Any] | None = None,
    version: str = "2",
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
        "http_version": version,
        "extensions": {} if tls is None else {"tls": tls},
    }
    await application(scope, receive, send)
    if not sent:
        return Response(0, {}, b"", {}), taken
    types = [event["type"] for event in sent]
    trailers = {}
    if sent[0].get("trailers"):
        assert types[-1] == "http.response.trailers"
        trailers = dict(sent[-1]["headers"])
    body = b"".join(e.get("body", b"") for e in sent if e["type"] == "http.response.body")
    return Response(sent[0]["status"], dict(sent[0]["headers"]), body, trailers), taken


def post(application: Application, *chunks: bytes, **parts: Any) -> Response:
    return asyncio.run(exchange(application, *chunks, **parts))[0]


def framed(message: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(message)) + message


HELLO = framed(CheckRequest(permission="course:view").SerializeToString())


def test_a_message_is_answered_by_a_message_and_trailers() -> None:
    response = post(application_of(), HELLO)
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
        assert post(application_of(), *parts).code == OK


def test_an_empty_message_is_a_message() -> None:
    assert post(application_of(), framed(b"")).code == OK


@pytest.mark.parametrize(
    "body", [b"", b"\x00", HELLO[:4], HELLO[:-1], HELLO + b"\x00", HELLO + HELLO]
)
def test_what_is_not_exactly_one_message_is_invalid(body: bytes) -> None:
    for chunks in ([body], [body, b""]):
        response = post(application_of(), *chunks)
        assert response.code == INVALID
        assert response.reason() == "REQUEST_INVALID"


@pytest.mark.parametrize("flag", [1, 2, 255])
def test_an_encoding_that_was_not_announced_is_unimplemented(flag: int) -> None:
    response = post(application_of(), framed(b"x", flag))
    assert response.code == UNIMPLEMENTED
    assert response.headers[b"grpc-accept-encoding"] == b"identity,gzip"


GRPC_TYPE = (b"content-type", b"application/grpc")
GZIP = (GRPC_TYPE, (b"grpc-encoding", b"gzip"))


def test_a_message_may_be_compressed_by_gzip_and_by_nothing_else() -> None:
    packed = framed(gzip.compress(HELLO[5:]), 1)
    for chunks in ([packed], [packed[:7], packed[7:]]):
        response = post(application_of(), *chunks, headers=GZIP)
        assert CheckResponse.FromString(response.body[5:]).message == "course:view"
    assert post(application_of(), HELLO, headers=GZIP).code == OK, "a message may stay as it is"
    for data in (b"", b"x", gzip.compress(b"")[:-1], gzip.compress(b"") + b"x"):
        assert post(application_of(), framed(data, 1), headers=GZIP).code == INVALID
    other = (GRPC_TYPE, (b"grpc-encoding", b"br"))
    assert post(application_of(), HELLO, headers=other).code == UNIMPLEMENTED


def test_a_message_that_grows_beyond_its_bound_is_not_inflated() -> None:
    bomb = framed(gzip.compress(bytes(BYTES_MAX * 100)), 1)
    assert len(bomb) < BYTES_MAX
    response = post(application_of(), bomb, headers=GZIP)
    assert (response.code, response.reason()) == (EXHAUSTED, "LIMIT_EXCEEDED")


def test_a_message_that_says_it_is_too_long_is_not_waited_for() -> None:
    """gRPC CVE-2023-32731 and the like: the bound holds while reading, not after."""
    start = struct.pack(">BI", 0, BYTES_MAX + 1) + b"x"
    response, taken = asyncio.run(exchange(application_of(), start, *([b"y" * 1000] * 200)))
    assert response.code == EXHAUSTED
    assert response.reason() == "LIMIT_EXCEEDED"
    assert taken == 1
    exactly = framed(CheckRequest(permission="p" * (BYTES_MAX - 4)).SerializeToString())
    assert len(exactly) == BYTES_MAX + 5
    assert post(application_of(), exactly).code == OK


def test_a_client_that_leaves_gets_nothing() -> None:
    assert asyncio.run(exchange(application_of(), HELLO[:3], b""))[0].code == INVALID
    response, _ = asyncio.run(exchange(application_of()))
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
    ],
)
def test_a_path_that_is_not_a_method_exactly_is_unimplemented(path: str, query: bytes) -> None:
    """gRPC-Go CVE-2026-33186."""
    assert post(application_of(), HELLO, path=path, query=query).code == UNIMPLEMENTED


@pytest.mark.parametrize("content_type", [b"", b"text/plain", b"application/grpc-web"])
def test_what_is_not_grpc_is_an_http_error(content_type: bytes) -> None:
    assert (
        post(application_of(), HELLO, headers=[(b"content-type", content_type)]).http_status == 415
    )
    assert post(application_of(), HELLO, verb="GET").http_status == 405


def test_grpc_needs_http_2_which_no_web_page_can_choose() -> None:
    assert post(application_of(), HELLO, version="1.1").http_status == 415


def test_a_request_of_a_web_page_is_refused() -> None:
    page = (GRPC_TYPE, (b"origin", b"http://127.0.0.1:50051"))
    assert post(application_of(), HELLO, headers=page).code == DENIED


@pytest.mark.parametrize("value", [b"", b"1", b"m", b"-1m", b"1 m", b"12345678901m", b"1d"])
def test_a_timeout_that_is_none_is_invalid(value: bytes) -> None:
    headers = (GRPC_TYPE, (b"grpc-timeout", value))
    assert post(application_of(), HELLO, headers=headers).code == INVALID


def test_the_work_is_given_up_when_the_deadline_of_the_client_has_passed() -> None:
    begun, given_up = [], []

    async def slowly(request: CheckRequest, caller: Caller) -> CheckResponse:
        begun.append(request)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            given_up.append(request)
            raise
        return await echo(request, caller)

    late = post(application_of(slowly), HELLO, headers=(GRPC_TYPE, (b"grpc-timeout", b"10m")))
    assert (late.code, late.reason()) == (DEADLINE, "DEADLINE_EXCEEDED")
    assert len(given_up) == 1
    over = post(application_of(slowly), HELLO, headers=(GRPC_TYPE, (b"grpc-timeout", b"0n")))
    assert over.code == DEADLINE
    assert len(begun) == 1


def test_headers_beyond_their_bound_are_refused() -> None:
    large = (GRPC_TYPE, (b"x-large", b"y" * METADATA_BYTES_MAX))
    assert post(application_of(), HELLO, headers=large).code == EXHAUSTED


@pytest.mark.parametrize("content_type", [b"application/grpc+proto", b"application/grpc;x=y"])
def test_grpc_may_name_its_format(content_type: bytes) -> None:
    assert post(application_of(), HELLO, headers=[(b"content-type", content_type)]).code == OK


def test_an_error_travels_in_headers_with_its_details() -> None:
    async def refuse(*_: Any) -> CheckResponse:
        raise AlreadyExists("role", "100 %\nünï")

    response = post(application_of(refuse), HELLO)
    assert (response.http_status, response.body, response.trailers) == (200, b"", {})
    assert response.reason() == "ALREADY_EXISTS"
    said = response.headers[b"grpc-message"].decode("ascii")
    assert said == quote(response.details().message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    assert "%25" in said
    assert "\n" not in said


def test_a_bug_says_nothing_but_a_request_id() -> None:
    async def fail(*_: Any) -> CheckResponse:
        raise KeyError("secret canary")

    response = post(application_of(fail), HELLO)
    assert response.code == INTERNAL
    assert "canary" not in str(response)
    assert response.reason() == "INTERNAL"


def test_what_blocks_is_answered_by_threads() -> None:
    threads = []

    def answer(request: CheckRequest, _: Caller) -> CheckResponse:
        threads.append(threading.current_thread())
        return CheckResponse(message=request.permission)

    with ThreadPoolExecutor(1) as pool:
        assert post(application_of(blocking(pool, answer)), HELLO).code == OK
    assert threads != [threading.main_thread()]


def test_a_stranger_is_refused_before_the_rest_of_the_message_is_read() -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    application = application_of(
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
        response, taken = asyncio.run(exchange(application, *sent, headers=all_headers))
        assert response.code == code
        assert taken == 1
        assert post(application, HELLO, headers=all_headers).code == code


def test_a_client_certificate_is_the_one_that_tls_has_verified() -> None:
    application = application_of(callers=[CallerSettings(name="mesh", spiffe_id=SPIFFE)])

    def code(*chain: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> int:
        tls = {"client_cert_chain": [pem.decode() for pem in chain]}
        return post(application, HELLO, tls=tls, headers=[GRPC_TYPE, *headers]).code

    good, other = certificate(uri(SPIFFE)), certificate()
    assert code(good) == OK
    assert code(good, other) == OK
    assert code() == UNAUTHENTICATED
    assert code(other, good) == UNAUTHENTICATED, "the first of a chain is the peer's own"
    said = b'Hash=00;Cert="' + quote(good, safe="").encode() + b'"'
    for name in (b"x-forwarded-client-cert", b"x-client-cert"):
        assert code(headers=[(name, said)]) == UNAUTHENTICATED


def test_health_says_whether_we_serve_and_knows_no_other_service() -> None:
    state = Health()
    application = application_of(health=state)

    def health(service: str = "") -> Response:
        raw = HealthCheckRequest(service=service).SerializeToString()
        return post(application, framed(raw), path="/grpc.health.v1.Health/Check")

    serving = HealthCheckResponse.ServingStatus
    assert HealthCheckResponse.FromString(health().body[5:]).status == serving.NOT_SERVING
    state.set_serving(serving=True)
    assert HealthCheckResponse.FromString(health().body[5:]).status == serving.SERVING
    assert health("other").code == NOT_FOUND
    assert post(application, framed(b"\xff"), path="/grpc.health.v1.Health/Check").code == INVALID


def test_while_it_drains_the_application_says_so_and_waits_for_what_is_in_flight() -> None:
    async def scenario() -> None:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def slowly(request: CheckRequest, caller: Caller) -> CheckResponse:
            entered.set()
            await leave.wait()
            return await echo(request, caller)

        application = application_of(slowly)
        slow = asyncio.create_task(exchange(application, HELLO))
        await entered.wait()
        closing = asyncio.create_task(application.drain(10))
        await asyncio.sleep(0)
        response, _ = await exchange(application, HELLO[:3], HELLO[3:])
        assert response.code == UNAVAILABLE
        assert response.reason() == "SHUTTING_DOWN"
        assert not closing.done()
        leave.set()
        assert (await slow)[0].code == OK
        await closing

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_message_whose_rest_arrives_while_it_drains_is_refused() -> None:
    """Its caller was admitted before, but nothing waits for its answer any more."""
    application = application_of()
    parts = iter([(HELLO[:4], True), (HELLO[4:], False)])
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        body, more = next(parts)
        if not more:
            await application.drain(0)
        return {"type": "http.request", "body": body, "more_body": more}

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/grpc")],
        "http_version": "2",
        "extensions": {},
    }
    asyncio.run(application(scope, receive, send))
    assert dict(sent[0]["headers"])[b"grpc-status"] == b"%d" % UNAVAILABLE


def test_more_requests_than_the_bound_are_refused() -> None:
    async def scenario() -> None:
        leave = asyncio.Event()

        async def slowly(request: CheckRequest, caller: Caller) -> CheckResponse:
            await leave.wait()
            return await echo(request, caller)

        application = application_of(slowly, rpcs_max=32)
        slow = [asyncio.create_task(exchange(application, HELLO)) for _ in range(32)]
        await asyncio.sleep(0)
        response, _ = await exchange(application, HELLO)
        assert (response.code, response.reason()) == (EXHAUSTED, "OVERLOADED")
        leave.set()
        assert {(await call)[0].code for call in slow} == {OK}
        assert (await exchange(application, HELLO))[0].code == OK

    asyncio.run(asyncio.wait_for(scenario(), 20))


class Nothing:
    """A subscription without messages."""

    due_at = 0.0
    closed = 0

    def take(self) -> Sequence[bytes] | None:
        return ()

    def close(self) -> None:
        self.closed += 1


def test_a_client_that_leaves_before_its_stream_begins_keeps_no_place() -> None:
    subscription = Nothing()
    method = StreamMethod(
        SERVICE, "Watch", "decide", CheckRequest, lambda *_: subscription, lambda _: None, BYTES_MAX
    )
    application = Application(Callers(()), [method], lambda *_: None, rpcs_max=1, streams_share=512)

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
        "http_version": "2",
    }
    with pytest.raises(ConnectionResetError):
        asyncio.run(application(scope, receive, send))
    assert subscription.closed == 1
