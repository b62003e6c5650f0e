"""The same handlers in the router of every framework, behind the prefixes that deployments add.

Which handler ran is written down in `ran`. A handler needs the permission of its own name.
"""

import asyncio
import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, unquote_to_bytes
from wsgiref.util import setup_testing_defaults

import flask
import pdp_client.fastapi
import pdp_client.flask
import pdp_client.starlette
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, HttpResponseNotFound
from django.urls import path as django_path
from django.urls import re_path
from fastapi import APIRouter, FastAPI, WebSocket
from pdp_client import Guard
from pdp_routes import PUBLIC, Routes
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from clients.python.tests.kit.webs import django_setup

HANDLERS = {
    "root": ("GET", "/"),
    "admin": ("GET", "/admin/x"),
    "one": ("GET", "/admin/{id}"),
    "deep": ("GET", "/api/admin/x"),
    "open": ("GET", "/open"),  # public
    "read": ("GET", "/x"),
    "write": ("POST", "/x"),
    "rest": ("GET", "/{rest:path}"),
}
ran: list[str] = []


@dataclass(frozen=True)
class Case:
    """A deployment, and a request."""

    framework: Literal["starlette", "fastapi", "flask", "django", "django-asgi"]
    root: str
    """The prefix of the server: `root_path`, `SCRIPT_NAME`."""
    says: Literal["all", "without prefix", "decoded"]
    """The path as the server received it; a proxy may have removed the prefix."""
    setting: str
    """FastAPI's `root_path`, Django's `FORCE_SCRIPT_NAME`."""
    mount: str
    """The prefix at which another application mounts it."""
    outside: bool
    """Whether the guard is that of the other application. Starlette and FastAPI."""
    forwarded: str
    """`X-Forwarded-Prefix`, believed by Werkzeug's ProxyFix. Flask and Django."""
    change: tuple[str, str] | None
    """The change by middleware behind the guard. Not in Flask, which looks for views first."""
    websocket: bool
    method: str
    target: str


change: list[tuple[str, str]] = []
"""The change by the middleware in this request."""


def routes_of(prefix: str = "") -> Routes:
    written: dict[str, Any] = {}
    for name, (method, pattern) in HANDLERS.items():
        for_method = "" if name == "rest" else f"{method} "
        route = for_method + prefix + pattern.replace("{rest:path}", "**")
        written[route] = PUBLIC if name == "open" else f"{name}:run"
    return Routes(written | ({"/outside": "outside:run"} if prefix else {}))


def send(case: Case, guard: Guard) -> None:
    """Sends the request of a case to its application."""
    ran.clear()
    change[:] = [] if case.change is None else [case.change]
    django_setup(guard)
    settings.FORCE_SCRIPT_NAME = case.setting or None
    settings.ROOT_URLCONF, before = __name__, settings.ROOT_URLCONF
    try:
        if case.framework in {"flask", "django"}:
            _send_wsgi(case, _wsgi_app(case.framework, case.mount, guard))
        else:
            app = _asgi_app(case.framework, case.setting, case.mount, case.outside, guard)
            asyncio.run(_send_asgi(case, app))
    finally:
        settings.FORCE_SCRIPT_NAME = None
        settings.ROOT_URLCONF = before


def forget() -> None:
    """Makes new applications."""
    for made in (_asgi_app, _wsgi_app, _django):
        made.cache_clear()


# --- ASGI ---------------------------------------------------------------------------------------


async def _send_asgi(case: Case, app: Any) -> None:
    target = case.target.partition("?")[0]
    prefix = "" if case.says == "without prefix" else case.root
    scope = {
        "type": "websocket" if case.websocket else "http",
        "path": prefix + unquote(target),
        "raw_path": None if case.says == "decoded" else (prefix + target).encode(),
        "root_path": case.root,
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer token")],
    }
    if not case.websocket:
        scope["method"] = case.method

    messages = [{"type": "websocket.connect" if case.websocket else "http.request"}]

    async def receive() -> dict[str, Any]:
        # The client stays, and says nothing more.
        return messages.pop() if messages else await asyncio.Future()

    async def ignore(_: Any) -> None:
        return

    await app(scope, receive, ignore)


class _Changing:
    """Middleware behind the guard."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app({**scope, **dict(change)}, receive, send)


@functools.cache
def _asgi_app(framework: str, setting: str, mount: str, outside: bool, guard: Guard) -> Any:
    if framework == "django-asgi":
        app = _django(ASGIHandler)
        return Starlette(routes=[Mount(mount, app)]) if mount else app
    make = starlette_app if framework == "starlette" else fastapi_app
    outside = outside and bool(mount)
    app = make("" if outside else setting)
    outer = app
    if mount:
        outer = Starlette() if framework == "starlette" else _fastapi(setting if outside else "")
        outer.mount(mount, app)
        outer.add_route("/outside", _starlette_handler("outside"))
    guarded = outer if outside else app
    guarded.add_middleware(_Changing)
    protect = pdp_client.starlette.protect
    protect(guarded, guard, routes_of(mount if outside else ""))
    return outer


def _starlette_handler(name: str) -> Callable[..., Any]:
    async def handle(_: Any) -> PlainTextResponse:
        ran.append(name)
        return PlainTextResponse(name)

    return handle


def _websocket_handler(name: str) -> Callable[..., Any]:
    async def handle(socket: WebSocket) -> None:
        ran.append(name)
        await socket.accept()
        await socket.close()

    return handle


def starlette_app(_: str) -> Starlette:
    routes: list[BaseRoute] = []
    for name, (method, pattern) in HANDLERS.items():
        methods = None if name == "rest" else [method]
        if method == "GET":
            routes.append(WebSocketRoute(pattern, _websocket_handler(name)))
        routes.append(Route(pattern, _starlette_handler(name), methods=methods))
    routes[-1].methods = None  # type: ignore[attr-defined]  # all
    return Starlette(routes=routes)


def _fastapi(root_path: str) -> FastAPI:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FastAPI(root_path=root_path, openapi_url=None)


def fastapi_app(root_path: str) -> FastAPI:
    router = APIRouter()

    def add(name: str, method: str, pattern: str) -> None:
        methods = ["GET", "POST", "OPTIONS"] if name == "rest" else [method]

        @router.api_route(pattern, methods=methods)
        async def handle() -> str:
            ran.append(name)
            return name

        if method == "GET":
            router.websocket(pattern)(_websocket_handler(name))

    for name, (method, pattern) in HANDLERS.items():
        add(name, method, pattern)
    app = _fastapi(root_path)
    app.include_router(router)
    return app


# --- WSGI ---------------------------------------------------------------------------------------


def _send_wsgi(case: Case, app: Any) -> None:
    target = case.target.partition("?")[0]
    decoded = unquote_to_bytes(target).decode("latin-1")
    whole = (case.root if case.says == "all" else "") + case.target
    environ: dict[str, Any] = {
        "REQUEST_METHOD": case.method,
        "SCRIPT_NAME": case.root,
        "PATH_INFO": decoded,
        "HTTP_AUTHORIZATION": "Bearer token",
        "HTTP_X_FORWARDED_PREFIX": case.forwarded,
    }
    if case.says != "decoded":
        environ["RAW_URI"] = whole
    if case.websocket:
        environ |= {"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket"}
    setup_testing_defaults(environ)
    if not case.forwarded:
        del environ["HTTP_X_FORWARDED_PREFIX"]
    b"".join(app(environ, lambda *_: None))


@functools.cache
def _wsgi_app(framework: str, mount: str, guard: Guard) -> Any:
    app = flask_app(guard) if framework == "flask" else _django(WSGIHandler)
    if mount:
        app = DispatcherMiddleware(_nothing, {mount: app})
    return ProxyFix(app, x_prefix=1)


def _nothing(_: Mapping[str, Any], start: Any) -> list[bytes]:
    start("404 Not Found", [])
    return []


def flask_app(guard: Guard) -> flask.Flask:
    app = flask.Flask("routers")

    def add(name: str, method: str, pattern: str) -> None:
        pattern = pattern.replace("{rest:path}", "<path:rest>").replace("{id}", "<id>")
        methods = ["GET", "POST", "OPTIONS"] if name == "rest" else [method]

        def handle(**_: str) -> str:
            ran.append(name)
            return name

        app.add_url_rule(pattern, name, handle, methods=methods)
        if method == "GET":
            app.add_url_rule(pattern, f"{name}-websocket", handle, websocket=True)

    for name, (method, pattern) in HANDLERS.items():
        add(name, method, pattern)
    pdp_client.flask.protect(app, guard, routes_of())
    return app


# --- Django -------------------------------------------------------------------------------------


@functools.cache
def _django(handler: type) -> Any:
    layers = ["pdp_client.django.GuardMiddleware", f"{__name__}.DjangoChanging"]
    before = settings.MIDDLEWARE, settings.PDP_ROUTES
    settings.MIDDLEWARE, settings.PDP_ROUTES = layers, routes_of()
    try:
        return handler()
    finally:
        settings.MIDDLEWARE, settings.PDP_ROUTES = before


class DjangoChanging:
    """Middleware behind the guard."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        for name, value in change:
            setattr(request, {"path": "path_info"}.get(name, name), value)
        return self._get_response(request)


def _django_view(**by_method: str) -> Callable[..., Any]:
    """A view of one path, of which Django's router knows no method."""

    async def view(request: Any, **_: str) -> HttpResponse:
        name = by_method.get(request.method, by_method.get("ALL"))
        if name is None:
            return HttpResponseNotFound()
        ran.append(name)
        return HttpResponse(name)

    return view


urlpatterns = [
    django_path("", _django_view(GET="root")),
    django_path("admin/x", _django_view(GET="admin")),
    django_path("admin/<id>", _django_view(GET="one")),
    django_path("api/admin/x", _django_view(GET="deep")),
    django_path("open", _django_view(GET="open")),
    django_path("x", _django_view(GET="read", POST="write")),
    re_path("^(?P<rest>.*)$", _django_view(ALL="rest")),
]
