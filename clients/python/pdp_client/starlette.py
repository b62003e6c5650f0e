"""The guard of Starlette applications, FastAPI's among them.

    protect(app, guard, Routes({"/admin/**": "admin:access", "GET /healthz": PUBLIC}))

The actor of a request that a route map lets pass is `request.state.actor`; on a public route it is
None. `GuardError`s that an endpoint raises are answered too.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pdp_routes import Routes

# Private, and the function by which the router finds its routes: FastAPI imports it too.
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
"""The key of a scope under which the guard leaves what it has judged."""
_POLICY_VIOLATION = 1008
"""RFC 6455, section 7.4.1."""
_DENIAL_RESPONSE = "websocket.http.response"
"""ASGI's extension: a websocket that is not accepted may be answered by HTTP."""


def protect(
    app: Starlette,
    guard: Guard | AsyncGuard,
    routes: Routes | None = None,
    *,
    cookie_name: str = SESSION_COOKIE,
) -> None:
    """Lets an application answer `GuardError`s and, with `routes`, lets requests and websockets
    pass only as the map says. Neither kind of guard blocks the event loop.

    The map is asked about the path by which the application finds its routes: without the
    `root_path` of a server, a mount or FastAPI. Middleware that is added later is outside of the
    guard, and so is the `CORSMiddleware` that was added last; where other middleware changes the
    path or the method behind the guard, the request is refused.
    """
    app.state.pdp = AsgiGuard(AsyncGuard.of(guard), cookie_name)
    app.add_exception_handler(GuardError, cast(Any, _answer))
    if routes is None:
        return
    app.add_middleware(_RouteGuard, guard=app.state.pdp, routes=routes)
    layers = app.user_middleware  # the outermost first
    layers.insert(_cors_in_front(layers[1:]), layers.pop(0))
    layers.append(Middleware(_RequestUnchanged))


class _RouteGuard:
    """Lets pass what a route map lets pass."""

    def __init__(self, app: ASGIApp, *, guard: "AsgiGuard", routes: Routes) -> None:
        """Raises ValueError: a mounted application would not read the path that is judged."""
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
            # A new dictionary: a server may give one to several requests.
            scope = {**scope, "state": {**scope.get("state", {}), "actor": actor}}
            # As ASGI wants it: a mount would read another path below it where a proxy, or a server,
            # has left away the root_path.
            scope["path"] = scope.get("root_path", "") + path
            scope[_JUDGED] = _routed_by(scope)
        await self.app(scope, receive, send)


class _RequestUnchanged:
    """Stands directly before the router: refuses what the guard has not judged as it is now."""

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
    """A guard, and where it finds tokens."""

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
    """All by which a router finds a route."""
    return scope["type"], scope.get("method"), scope["path"], scope.get("root_path", "")


def _cors_in_front(layers: Sequence[Middleware]) -> int:
    """How many layers answer preflights before any other layer sees them. A preflight carries no
    token, so these stand outside of the guard."""
    answers = [isinstance(one.cls, type) and issubclass(one.cls, CORSMiddleware) for one in layers]
    front = [*answers, False].index(False)
    if any(answers[front:]):
        log.warning(
            "CORSMiddleware stands behind the guard, where no preflight reaches it: "
            "add it after protect()"
        )
    return front


def _own_root_paths(app: object) -> Iterator[str]:
    """The `root_path`s that applications at or below `app` set by themselves, as FastAPI's may."""
    seen: dict[int, object] = {}
    left = [app]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, Starlette) and (root_path := getattr(one, "root_path", "")):
            yield root_path
        if isinstance(one, Starlette | Router):
            left += one.routes
        # What a layer or a mount has inside, and what a router of FastAPI includes.
        left += [getattr(one, name, None) for name in ("app", "original_router")]


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
