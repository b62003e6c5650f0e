"""The guard of Starlette applications, FastAPI's among them.

    protect(app, guard, Routes({"/admin/**": "admin:access", "GET /healthz": PUBLIC}))

The actor of a request that a route map lets pass is `request.state.actor`; on a public route it is
None. `GuardError`s that an endpoint raises are answered too.
"""

from dataclasses import dataclass
from typing import Any, cast

from pdp_routes import Routes
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketClose, WebSocketState

from pdp_client.adapting import answer, asgi_token, routed, sent_by_asgi, sent_path
from pdp_client.aio import AsyncGuard
from pdp_client.errors import GuardError
from pdp_client.guard import Guard
from pdp_client.headers import SESSION_COOKIE
from pdp_client.values import Actor, Question

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

    Middleware that is added later is outside of the guard.
    """
    app.state.pdp = AsgiGuard(AsyncGuard.of(guard), cookie_name)
    app.add_exception_handler(GuardError, cast(Any, _answer))
    if routes is not None:
        app.add_middleware(GuardMiddleware, guard=guard, routes=routes, cookie_name=cookie_name)


class GuardMiddleware:
    """Lets pass what a route map lets pass, by any ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        guard: Guard | AsyncGuard,
        routes: Routes,
        cookie_name: str = SESSION_COOKIE,
    ) -> None:
        self._app = app
        self._guard = AsgiGuard(AsyncGuard.of(guard), cookie_name)
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            try:
                path = sent_path(scope["path"], sent_by_asgi(scope))
                method = "GET" if scope["type"] == "websocket" else scope["method"]
                question = routed(self._routes, method, path)
                actor = None if question is None else await self._guard.require(scope, question)
            except GuardError as error:
                await _refusal(scope, error)(scope, receive, send)
                return
            # A new dictionary: a server may give one to several requests.
            scope = {**scope, "state": {**scope.get("state", {}), "actor": actor}}
        await self._app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class AsgiGuard:
    """A guard, and where it finds tokens."""

    guard: AsyncGuard
    cookie_name: str

    async def require(self, scope: Scope, question: Question) -> Actor:
        token = asgi_token(scope, self.cookie_name)
        return await self.guard.require(token, question.permission, question.resource)


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
