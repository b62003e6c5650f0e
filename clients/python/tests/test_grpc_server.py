"""The guard of gRPC servers, in real ones of both kinds, with a real PDP."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from pdp_client import Guard, Resource
from pdp_client.grpc_server import (
    PUBLIC,
    AsyncGuardInterceptor,
    GuardInterceptor,
    current_actor,
    needs,
)

SERVICE = "courses.v1.Courses"


def course(request: bytes) -> Resource:
    return Resource("course", request.decode())


def absent(_: bytes) -> Any:
    return None


METHODS = {
    f"/{SERVICE}/Edit": needs("course:edit", course),
    f"/{SERVICE}/Watch": needs("course:edit", course),
    f"/{SERVICE}/Upload": needs("admin:access"),
    f"/{SERVICE}/Chat": needs("admin:access"),
    f"/{SERVICE}/UploadOne": needs("course:edit", course),
    f"/{SERVICE}/Absent": needs("course:edit", absent),
    f"/{SERVICE}/Health": PUBLIC,
    f"/{SERVICE}/StepUp": needs("case:deny-step-up"),
}
passed: list[str] = []


def note(name: str) -> bytes:
    passed.append(f"{name} {current_actor().user_id}")
    return passed[-1].encode()


def health(_request: Any, _context: Any) -> bytes:
    with pytest.raises(LookupError):
        current_actor()
    return b"healthy"


def stream(name: str) -> Iterator[bytes]:
    yield note(name)
    yield note(name)  # the actor is known at each step


def handlers() -> dict[str, grpc.RpcMethodHandler]:
    one, many = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    return {
        "Edit": one(lambda _r, _c: note("Edit")),
        "Absent": one(lambda _r, _c: note("Absent")),
        "StepUp": one(lambda _r, _c: note("StepUp")),
        "Unnamed": one(lambda _r, _c: note("Unnamed")),
        "Health": one(health),
        "Watch": many(lambda _r, _c: stream("Watch")),
        "Upload": grpc.stream_unary_rpc_method_handler(lambda _r, _c: note("Upload")),
        "UploadOne": grpc.stream_unary_rpc_method_handler(lambda _r, _c: note("UploadOne")),
        "Chat": grpc.stream_stream_rpc_method_handler(lambda _r, _c: stream("Chat")),
    }


def async_handlers() -> dict[str, grpc.RpcMethodHandler]:
    async def edit(_request: Any, _context: Any) -> bytes:
        return note("Edit")

    async def watch(_request: Any, _context: Any) -> Any:
        for message in stream("Watch"):
            yield message

    async def upload(_requests: Any, _context: Any) -> bytes:
        return note("Upload")

    async def chat(_requests: Any, _context: Any) -> Any:
        for message in stream("Chat"):
            yield message

    return {
        **handlers(),
        "Edit": grpc.unary_unary_rpc_method_handler(edit),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
        "Upload": grpc.stream_unary_rpc_method_handler(upload),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }


def serve_in_threads(guard: Guard, stop: threading.Event, tell: Callable[[int], None]) -> None:
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[GuardInterceptor(guard, METHODS)])
    generic = grpc.method_handlers_generic_handler(SERVICE, handlers())
    server.add_generic_rpc_handlers((generic,))
    tell(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    stop.wait()
    server.stop(None).wait()


def serve_in_asyncio(guard: Guard, stop: threading.Event, tell: Callable[[int], None]) -> None:
    async def serve() -> None:
        server = grpc.aio.server(interceptors=[AsyncGuardInterceptor(guard, METHODS)])
        generic = grpc.method_handlers_generic_handler(SERVICE, async_handlers())
        server.add_generic_rpc_handlers((generic,))
        tell(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        await asyncio.to_thread(stop.wait)
        await server.stop(None)

    asyncio.run(serve())


@pytest.fixture(scope="module", params=[serve_in_threads, serve_in_asyncio])
def serve(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def channel(serve: Any, harness: Mapping[str, Any]) -> Iterator[grpc.Channel]:
    with Guard(harness["pdp"], api_key=harness["api_key"], deadline_seconds=10) as guard:
        yield from served(serve, guard)


def served(serve: Any, guard: Guard) -> Iterator[grpc.Channel]:
    stop, started, ports = threading.Event(), threading.Event(), []

    def tell(port: int) -> None:
        ports.append(port)
        started.set()

    thread = threading.Thread(target=serve, args=(guard, stop, tell))
    thread.start()
    try:
        assert started.wait(20)
        with grpc.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
            yield channel
    finally:
        stop.set()
        thread.join(20)


@pytest.fixture
def call(channel: grpc.Channel, harness: Mapping[str, Any]) -> Callable[..., list[str]]:
    """`call("Edit", "student", b"algebra")`: all that is answered."""
    passed.clear()
    return lambda method, token, *sent: ask(channel, method, harness["tokens"].get(token), *sent)


def ask(channel: grpc.Channel, method: str, token: str | None, *sent: bytes) -> list[str]:
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    path = f"/{SERVICE}/{method}"
    options: dict[str, Any] = {"metadata": metadata, "timeout": 20, "wait_for_ready": True}
    match method:
        case "Watch":
            return [message.decode() for message in channel.unary_stream(path)(sent[0], **options)]
        case "Chat":
            return [
                message.decode() for message in channel.stream_stream(path)(iter(sent), **options)
            ]
        case "Upload" | "UploadOne":
            return [channel.stream_unary(path)(iter(sent), **options).decode()]
        case _:
            return [channel.unary_unary(path)(sent[0], **options).decode()]


def refusal(call: Callable[..., list[str]], *asked: Any) -> grpc.StatusCode:
    """The status of a call that was ended before its handler."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*asked)
    assert passed == []
    return caught.value.code()


def test_a_call_of_every_kind_passes_as_the_verified_actor(call: Callable[..., list[str]]):
    assert call("Edit", "instructor", b"algebra") == ["Edit user_ivan"]
    assert call("Watch", "instructor", b"algebra") == ["Watch user_ivan"] * 2
    assert call("Upload", "admin", b"a", b"b") == ["Upload user_ada"]
    assert call("Chat", "admin", b"a") == ["Chat user_ada"] * 2


@pytest.mark.parametrize("method", ["Edit", "Watch", "Upload", "Chat"])
def test_a_denied_caller_cannot_make_a_call_of_any_kind(
    call: Callable[..., list[str]], method: str
):
    assert refusal(call, method, "student", b"algebra") is grpc.StatusCode.PERMISSION_DENIED
    for token in ("expired", "forged", "nobody"):
        assert refusal(call, method, token, b"algebra") is grpc.StatusCode.UNAUTHENTICATED


def test_a_refusal_names_its_decision_and_no_reason(call: Callable[..., list[str]]):
    with pytest.raises(grpc.RpcError) as caught:
        call("Edit", "student", b"algebra")
    decision_id = dict(caught.value.trailing_metadata())["decision-id"]
    assert caught.value.details() == f"forbidden (decision {decision_id})"


def test_a_denial_that_a_verification_would_lift_has_its_challenge(
    serve: Any, harness: Mapping[str, Any]
):
    """The form of RFC 9470 that HTTP guards send, so that a gateway can hand it on."""
    passed.clear()
    with Guard(harness["scripted"], deadline_seconds=10) as guard:
        for channel in served(serve, guard):
            with pytest.raises(grpc.RpcError) as caught:
                ask(channel, "StepUp", harness["tokens"]["instructor"], b"")
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert dict(caught.value.trailing_metadata())["www-authenticate"] == (
                'Bearer error="insufficient_user_authentication", '
                'acr_values="second_factor", max_age="540"'
            )
    assert passed == []


def test_a_method_that_is_not_named_passes_nobody(call: Callable[..., list[str]]):
    assert refusal(call, "Unnamed", "admin", b"") is grpc.StatusCode.PERMISSION_DENIED
    assert refusal(call, "Nowhere", "admin", b"") is grpc.StatusCode.PERMISSION_DENIED


def test_a_public_method_has_no_actor(call: Callable[..., list[str]]):
    assert call("Health", "nobody", b"") == ["healthy"]


def test_a_question_without_its_resource_is_never_asked(call: Callable[..., list[str]]):
    assert refusal(call, "Absent", "admin", b"algebra") is grpc.StatusCode.INTERNAL
    assert refusal(call, "UploadOne", "admin", b"algebra") is grpc.StatusCode.INTERNAL


def test_two_tokens_are_none(channel: grpc.Channel, harness: Mapping[str, Any]):
    passed.clear()
    twice = (("authorization", f"Bearer {harness['tokens']['admin']}"),) * 2
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/Edit")(b"algebra", metadata=twice, timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert passed == []


def test_without_an_answer_nobody_passes(serve: Any, harness: Mapping[str, Any]):
    passed.clear()
    with Guard("127.0.0.1:1", deadline_seconds=0.1) as guard:
        for channel in served(serve, guard):
            with pytest.raises(grpc.RpcError) as caught:
                ask(channel, "Edit", harness["tokens"]["admin"], b"algebra")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert ask(channel, "Health", None, b"") == ["healthy"]
    assert passed == []


@pytest.mark.parametrize("kind", [GuardInterceptor, AsyncGuardInterceptor])
def test_a_map_that_guards_nothing_is_refused(kind: Any):
    with Guard("127.0.0.1:1") as guard:
        for name in ("Edit", "courses.v1.Courses/Edit", "/courses.v1.Courses", "//Edit", "/a/b/c"):
            with pytest.raises(ValueError, match="is not a method"):
                kind(guard, {name: PUBLIC})
        with pytest.raises(TypeError, match="must need a permission"):
            kind(guard, {f"/{SERVICE}/Edit": "course:edit"})
