"""The guard of gRPC servers, by what each method needs.

    methods = {
        "/courses.v1.Courses/List": needs("course:view"),
        "/courses.v1.Courses/Edit": needs("course:edit", lambda one: Resource("course", one.id)),
        "/grpc.health.v1.Health/Check": PUBLIC,
    }
    server = grpc.server(pool, interceptors=[GuardInterceptor(guard, methods)])
    server = grpc.aio.server(interceptors=[AsyncGuardInterceptor(guard, methods)])

A method that is not named is refused, health and reflection too. The token is that of the one
`authorization: Bearer` of the metadata. In a handler `current_actor()` is who was let pass.

A stream of answers is guarded when it begins. Of one that goes on after the actor's rights ended,
the handler asks again.
"""

import contextvars
import inspect
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from pdp_routes import PUBLIC, Public

from pdp_client.adapting import ResourceOf, log_failure, question
from pdp_client.aio import AsyncGuard
from pdp_client.errors import Denied, GuardError
from pdp_client.guard import Guard
from pdp_client.headers import session_token
from pdp_client.values import Actor

__all__ = ["PUBLIC", "AsyncGuardInterceptor", "GuardInterceptor", "current_actor", "needs"]

log = logging.getLogger("pdp_client")

_METHOD_NAME = re.compile(r"/[^/]+/[^/]+")
_actor: contextvars.ContextVar[Actor] = contextvars.ContextVar("pdp_actor")


@dataclass(frozen=True, slots=True)
class MethodNeeds:
    """A permission that calls of a method need."""

    permission: str
    resource: ResourceOf | None


def needs(permission: str, resource: ResourceOf | None = None) -> MethodNeeds:
    """`resource` gets the request. A method whose requests are a stream has no one request, so it
    cannot have that: its handler asks for each message."""
    return MethodNeeds(permission, resource)


Methods = Mapping[str, MethodNeeds | Public]
"""By `/package.Service/Method`."""


def current_actor() -> Actor:
    """Who was let pass to this call. Raises LookupError in a public method."""
    return _actor.get()


class GuardInterceptor(grpc.ServerInterceptor):
    """Guards a server of `grpc.server`."""

    def __init__(self, guard: Guard | AsyncGuard, methods: Methods) -> None:
        """Raises ValueError for what names no method, TypeError for what is no need."""
        self._guard, self._methods = Guard.of(guard), _checked(methods)

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Returns the handler of the method with the check before it."""
        what = self._methods.get(handler_call_details.method)
        handler = None if what is None else continuation(handler_call_details)
        return _guarded(what, handler, self._guard, None)


class AsyncGuardInterceptor(grpc.aio.ServerInterceptor):
    """Guards a server of `grpc.aio.server`. Its handlers that are not async run in threads."""

    def __init__(self, guard: Guard | AsyncGuard, methods: Methods) -> None:
        """Raises ValueError for what names no method, TypeError for what is no need."""
        self._guard, self._methods = guard, _checked(methods)

    async def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Returns the handler of the method with the check before it."""
        what = self._methods.get(handler_call_details.method)
        handler = None if what is None else await continuation(handler_call_details)
        return _guarded(what, handler, Guard.of(self._guard), AsyncGuard.of(self._guard))


def _checked(methods: Methods) -> Methods:
    for name, what in methods.items():
        if not _METHOD_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a method such as /package.Service/Method")
        if not isinstance(what, MethodNeeds | Public):
            raise TypeError(f"{name} must need a permission, or be public")
    return dict(methods)


def _guarded(
    what: MethodNeeds | Public | None, handler: Any, guard: Guard, aio: AsyncGuard | None
) -> Any:
    """The handler with the check before it. `aio`: of a server of grpc.aio."""
    if what is None:
        return _ended(grpc.StatusCode.PERMISSION_DENIED, "forbidden", aio is not None)
    if handler is None or isinstance(what, Public):
        return handler
    if handler.request_streaming and what.resource is not None:
        log.error("a method whose requests are a stream cannot have a resource")
        return _ended(grpc.StatusCode.INTERNAL, "internal", aio is not None)
    name, make = _KINDS[handler.request_streaming, handler.response_streaming]
    inner = getattr(handler, name)
    if aio is not None and inspect.isasyncgenfunction(inner):
        behavior = _async_stream(what, inner, aio)
    elif aio is not None and inspect.iscoroutinefunction(inner):
        behavior = _async_one(what, inner, aio)
    elif handler.response_streaming:
        behavior = _stream(what, inner, guard)
    else:
        behavior = _one(what, inner, guard)
    return make(behavior, handler.request_deserializer, handler.response_serializer)


_KINDS: Mapping[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""By whether requests and responses are streams."""

Behavior = Callable[[Any, Any], Any]


def _one(what: MethodNeeds, inner: Behavior, guard: Guard) -> Behavior:
    def behavior(request: Any, context: Any) -> Any:
        return _entered(what, request, context, guard).run(inner, request, context)

    return behavior


def _stream(what: MethodNeeds, inner: Behavior, guard: Guard) -> Behavior:
    def behavior(request: Any, context: Any) -> Iterator[Any]:
        within = _entered(what, request, context, guard)
        responses = within.run(iter, within.run(inner, request, context))
        while True:  # each step where the actor is known, whichever thread it is in
            try:
                response = within.run(next, responses)
            except StopIteration:
                return
            yield response

    return behavior


def _async_one(what: MethodNeeds, inner: Behavior, guard: AsyncGuard) -> Behavior:
    async def behavior(request: Any, context: Any) -> Any:
        await _enter(what, request, context, guard)
        return await inner(request, context)

    return behavior


def _async_stream(what: MethodNeeds, inner: Behavior, guard: AsyncGuard) -> Behavior:
    async def behavior(request: Any, context: Any) -> AsyncIterator[Any]:
        await _enter(what, request, context, guard)
        async for response in inner(request, context):
            yield response

    return behavior


def _entered(what: MethodNeeds, request: Any, context: Any, guard: Guard) -> contextvars.Context:
    """Where the handler runs; ends the call where it must not."""
    try:
        asked = question(what.permission, what.resource, request)
        actor = guard.require(_token(context), asked.permission, asked.resource)
    except Exception as error:  # noqa: BLE001  # no error lets pass, and none is told to a stranger
        ending = _Ending.of(error)
    else:
        within = contextvars.copy_context()
        within.run(_actor.set, actor)
        return within
    context.set_trailing_metadata(ending.metadata)
    context.abort(ending.code, ending.text)
    raise AssertionError("the call was ended")


async def _enter(what: MethodNeeds, request: Any, context: Any, guard: AsyncGuard) -> None:
    """The same, in the task of the call."""
    try:
        asked = question(what.permission, what.resource, request)
        actor = await guard.require(_token(context), asked.permission, asked.resource)
    except Exception as error:  # noqa: BLE001  # no error lets pass, and none is told to a stranger
        ending = _Ending.of(error)
    else:
        _actor.set(actor)
        return
    await context.abort(ending.code, ending.text, ending.metadata)


def _token(context: Any) -> str:
    pairs = [(name, value) for name, value in context.invocation_metadata() or ()]
    return session_token((name, value) for name, value in pairs if name == "authorization")


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a call ends that does not go on."""

    code: grpc.StatusCode
    text: str
    metadata: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, error: Exception) -> "_Ending":
        if not isinstance(error, GuardError):
            log.error("a call was refused, because its guard failed", exc_info=error)
            return cls(grpc.StatusCode.INTERNAL, "internal")
        log_failure(error)
        code = grpc.StatusCode[error.grpc_status]
        if not isinstance(error, Denied):
            return cls(code, error.word)
        decision_id = error.decision.decision_id
        return cls(code, f"{error.word} (decision {decision_id})", (("decision-id", decision_id),))


def _ended(code: grpc.StatusCode, text: str, is_aio: bool) -> Any:
    """A handler that ends every call, of whichever kind, before anything is read."""

    def end(_: Any, context: Any) -> Iterator[Any]:
        context.abort(code, text)
        yield

    async def end_async(_: Any, context: Any) -> None:
        await context.abort(code, text)

    return grpc.stream_stream_rpc_method_handler(end_async if is_aio else end)
