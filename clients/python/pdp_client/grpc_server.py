"""The guard of gRPC servers, by the permission that each method needs.

    methods = {
        "/courses.v1.Courses/List": needs("course:view"),
        "/courses.v1.Courses/Edit": needs("course:edit", lambda edit: Resource("course", edit.id)),
        "/grpc.health.v1.Health/Check": PUBLIC,
    }
    server = grpc.server(pool, interceptors=[GuardInterceptor(guard, methods)])
    server = grpc.aio.server(interceptors=[AsyncGuardInterceptor(guard, methods)])

A method that is missing from the map is refused, health and reflection too. The token is that of
the only `authorization: Bearer` in the metadata. In a handler, `current_actor()` is the allowed
actor.

A stream of answers is guarded when it begins. If it may outlast the actor's rights, its handler
must ask again.
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
from pdp_client.refusals import trailers_of
from pdp_client.values import Actor

__all__ = ["PUBLIC", "AsyncGuardInterceptor", "GuardInterceptor", "current_actor", "needs"]

log = logging.getLogger("pdp_client")

_METHOD_NAME = re.compile(r"/[^/]+/[^/]+")
_actor: contextvars.ContextVar[Actor] = contextvars.ContextVar("pdp_actor")


@dataclass(frozen=True, slots=True)
class MethodNeeds:
    """The permission that calls of a method need."""

    permission: str
    resource: ResourceOf | None


def needs(permission: str, resource: ResourceOf | None = None) -> MethodNeeds:
    """The permission of a method. `resource` receives the request. A method whose requests are a
    stream has no single request, so it cannot have a resource: its handler asks for each
    message."""
    return MethodNeeds(permission, resource)


Methods = Mapping[str, MethodNeeds | Public]
"""What each method needs, by `/package.Service/Method`."""


def current_actor() -> Actor:
    """The actor of this call. Raises LookupError in a public method."""
    return _actor.get()


class GuardInterceptor(grpc.ServerInterceptor):
    """Guards a server of `grpc.server`."""

    def __init__(self, guard: Guard | AsyncGuard, methods: Methods) -> None:
        """Raises ValueError for an invalid method name, TypeError for an invalid value."""
        self._guard, self._methods = Guard.of(guard), _checked(methods)

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Returns the handler of the method with the check before it."""
        what = self._methods.get(handler_call_details.method)
        handler = None if what is None else continuation(handler_call_details)
        return _guarded(what, handler, self._guard, None)


class AsyncGuardInterceptor(grpc.aio.ServerInterceptor):
    """Guards a server of `grpc.aio.server`. Runs its handlers that are not async in threads."""

    def __init__(self, guard: Guard | AsyncGuard, methods: Methods) -> None:
        """Raises ValueError for an invalid method name, TypeError for an invalid value."""
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
    """The handler with the check before it. `aio`: the guard of a grpc.aio server."""
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
        while True:  # each step runs in the context with the actor, in any thread
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
    """The context in which the handler runs. Ends the call if the actor is not allowed."""
    try:
        asked = question(what.permission, what.resource, request)
        actor = guard.require(_token(context), asked.permission, asked.resource)
    except Exception as error:  # noqa: BLE001  # an error never allows, and strangers see none
        ending = _Ending.of(error)
    else:
        within = contextvars.copy_context()
        within.run(_actor.set, actor)
        return within
    context.set_trailing_metadata(ending.metadata)
    context.abort(ending.code, ending.text)
    raise AssertionError("the call was ended")


async def _enter(what: MethodNeeds, request: Any, context: Any, guard: AsyncGuard) -> None:
    """Like `_entered`, but in the task of the call."""
    try:
        asked = question(what.permission, what.resource, request)
        actor = await guard.require(_token(context), asked.permission, asked.resource)
    except Exception as error:  # noqa: BLE001  # an error never allows, and strangers see none
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
    """The end of a refused call."""

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
        text = error.word
        if isinstance(error, Denied):
            text += f" (decision {error.decision.decision_id})"
        return cls(code, text, tuple(trailers_of(error).items()))


def _ended(code: grpc.StatusCode, text: str, is_aio: bool) -> Any:
    """A handler that ends every call, of any kind, before it reads anything."""

    def end(_: Any, context: Any) -> Iterator[Any]:
        context.abort(code, text)
        yield

    async def end_async(_: Any, context: Any) -> None:
        await context.abort(code, text)

    return grpc.stream_stream_rpc_method_handler(end_async if is_aio else end)
