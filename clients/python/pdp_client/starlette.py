"""The guard of Starlette applications, FastAPI's included.

    protect(app, guard, Routes({"/admin/**": "admin:access", "GET /healthz": PUBLIC}))

If a route map lets a request pass, its actor is `request.state.actor`; on a public route that is
None. A `GuardError` that an endpoint raises becomes an answer too.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pdp_routes import Routes

# Private, but the function by which the router finds its routes: FastAPI imports it too.
from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketClose, WebSocketState

from pdp_client.adapting import answer, asgi_token, refused_route, routed, sent_by_asgi
from pdp_client.aio import AsyncGuard
from pdp_client.errors import GuardError
from pdp_client.guard import Guard
from pdp_client.headers import SESSION_COOKIE
from pdp_client.values import Actor, Question

log = logging.getLogger("pdp_client")

_JUDGED = "pdp_client.judged"
"""The key of a scope under which the guard stores what it has checked."""
_POLICY_VIOLATION = 1008
"""RFC 6455, section 7.4.1."""
_DENIAL_RESPONSE = "websocket.http.response"
"""ASGI's extension that allows an HTTP response to a websocket that is not accepted."""


def protect(
    app: Starlette,
    guard: Guard | AsyncGuard,
    routes: Routes | None = None,
    *,
    cookie_name: str = SESSION_COOKIE,
) -> None:
    """Turns each `GuardError` into an answer. With `routes`, the map decides which requests and
    websockets pass. Neither kind of guard blocks the event loop.

    The map matches the path by which the application finds its routes: without the `root_path` of a
    server, a mount or FastAPI. Middleware that is added later is outside of the guard, and so is
    the `CORSMiddleware` that was added last. If other middleware changes the path or the method
    behind the guard, the request is refused.
    """
    app.state.pdp = AsgiGuard(AsyncGuard.of(guard), cookie_name)
    app.add_exception_handler(GuardError, cast(Any, _answer))
    if routes is None:
        return
    app.add_middleware(_RouteGuard, guard=app.state.pdp, routes=routes)
    layers = app.user_middleware  # outermost first
    layers.insert(_cors_in_front(layers[1:]), layers.pop(0))
    layers.append(Middleware(_RequestUnchanged))


class _RouteGuard:
    """Lets requests pass as a route map says."""

    def __init__(self, app: ASGIApp, *, guard: "AsgiGuard", routes: Routes) -> None:
        """Raises ValueError for a mounted application that does not read the path that the guard
        checks."""
        for path in _own_root_paths(app):
            raise ValueError(
                f"a mounted application has the root_path {path!r} of its own, and would not find "
                "its routes by the path that the guard judges: leave it away, the mount sets it"
            )
        self.app = app
        self._guard = guard
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            path = get_route_path(scope)
            method = "GET" if scope["type"] == "websocket" else scope["method"]
            try:
                question = routed(self._routes, method, path, sent_by_asgi(scope))
                actor = None if question is None else await self._guard.require(scope, question)
            except GuardError as error:
                await _refusal(scope, error)(scope, receive, send)
                return
            # A new dictionary, because a server may share the given one between requests.
            scope = {**scope, "state": {**scope.get("state", {}), "actor": actor}}
            # In the form of ASGI: if a proxy or a server has removed the root_path, a mount would
            # read another path below it.
            scope["path"] = scope.get("root_path", "") + path
            scope[_JUDGED] = _routed_by(scope)
        await self.app(scope, receive, send)


class _RequestUnchanged:
    """Runs directly before the router: refuses a request that has changed since the guard checked
    it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and scope.get(_JUDGED) != _routed_by(scope):
            method = scope.get("method", "GET")
            error = refused_route(method, get_route_path(scope), "request_changed")
            await _refusal(scope, error)(scope, receive, send)
            return
        await self.app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class AsgiGuard:
    """A guard, and the cookie in which it finds tokens."""

    guard: AsyncGuard
    cookie_name: str

    async def require(self, scope: Scope, question: Question) -> Actor:
        """Returns the actor if the bearer of the request's token is allowed.

        Raises:
            GuardError: the bearer is not allowed, or there is no decision.
        """
        token = asgi_token(scope, self.cookie_name)
        return await self.guard.require(token, question.permission, question.resource)


def _routed_by(scope: Scope) -> tuple[object, ...]:
    """Everything by which a router finds a route."""
    return scope["type"], scope.get("method"), scope["path"], scope.get("root_path", "")


def _cors_in_front(layers: Sequence[Middleware]) -> int:
    """The number of layers that answer preflights before any other layer sees them. A preflight has
    no token, so these are outside of the guard."""
    answers = [
        isinstance(layer.cls, type) and issubclass(layer.cls, CORSMiddleware) for layer in layers
    ]
    front = [*answers, False].index(False)
    if any(answers[front:]):
        log.warning(
            "CORSMiddleware is behind the guard, so no preflight reaches it: add it after protect()"
        )
    return front


def _own_root_paths(app: object) -> Iterator[str]:
    """The `root_path`s that `app` and the applications below it set themselves, as FastAPI's
    may."""
    seen: dict[int, object] = {}
    left = [app]
    while left:
        layer = left.pop()
        if id(layer) in seen:
            continue
        seen[id(layer)] = layer
        if isinstance(layer, Starlette) and (root_path := getattr(layer, "root_path", "")):
            yield root_path
        if isinstance(layer, Starlette | Router):
            left += layer.routes
        # What a layer or a mount wraps, and what a router of FastAPI includes.
        left += [getattr(layer, name, None) for name in ("app", "original_router")]


async def _answer(connection: HTTPConnection, error: GuardError) -> ASGIApp | None:
    if isinstance(connection, WebSocket):
        if connection.application_state is WebSocketState.CONNECTING:
            await _refusal(connection.scope, error)(
                connection.scope, connection.receive, connection.send
            )
        elif connection.application_state is WebSocketState.CONNECTED:
            await connection.close(_POLICY_VIOLATION)
        return None
    return _refusal(connection.scope, error)


def _refusal(scope: Scope, error: GuardError) -> ASGIApp:
    if scope["type"] == "websocket" and _DENIAL_RESPONSE not in scope.get("extensions", {}):
        return WebSocketClose(_POLICY_VIOLATION)  # which the server answers with 403
    refusal = answer(error)
    return Response(refusal.body, refusal.status, refusal.headers)
