"""One application in every framework, on real servers. What passes its guard is written down.

Everything that the route map lets pass is answered by `anything`. Below `/own/`, where the map lets
everybody pass, are what views and dependencies require by themselves.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
import flask
import pdp_client.django
import pdp_client.fastapi
import pdp_client.flask
import pdp_client.starlette
import uvicorn
import werkzeug.serving
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path, re_path
from django.views import View
from fastapi import Depends, FastAPI
from pdp_client import Actor, AsyncGuard, Guard, Resource
from pdp_routes import PUBLIC, Needs, Routes
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware

ROUTES = Routes(
    {
        "GET /courses/{id}": Needs("course:view", "course/{id}"),
        "PUT /courses/{id}": Needs("course:edit", "course/{id}"),
        "/courses/{id}/admin": "admin:access",
        "/admin/**": "admin:access",
        "GET /healthz": PUBLIC,
        "/own/**": PUBLIC,
    }
)
passed: list[str] = []
"""The requests that passed, as `method path actor`."""

AnyGuard = Guard | AsyncGuard


def note(method: str, path: str, actor: Actor | None) -> str:
    passed.append(f"{method} {path} {actor and actor.user_id}")
    return passed[-1]


def broken(_: object) -> Resource:
    raise LookupError("nothing there")


def absent(_: object) -> Any:
    return None


# --- Starlette ----------------------------------------------------------------------------------


def starlette_app(guard: AnyGuard) -> Starlette:
    def anything(request: Request) -> PlainTextResponse:
        return PlainTextResponse(note(request.method, request.url.path, request.state.actor))

    class Own(HTTPEndpoint):
        async def put(self, request: Request) -> PlainTextResponse:
            token = pdp_client.session_token(request.headers.items())
            course = Resource("course", request.path_params["course_id"])
            actor = await AsyncGuard.of(guard).require(token, "course:edit", course)
            return PlainTextResponse(note("PUT", "/own", actor))

        get = put

    routes = [
        Route("/own/courses/{course_id}", Own),
        Route("/{rest:path}", anything, methods=METHODS),
    ]
    app = Starlette(routes=routes)
    pdp_client.starlette.protect(app, guard, ROUTES)
    return app


METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"]

# --- FastAPI ------------------------------------------------------------------------------------


def course_of_connection(request: Request) -> Resource:
    return Resource("course", request.path_params["course_id"])


Editor = Annotated[Actor, Depends(pdp_client.fastapi.Requires("course:edit", course_of_connection))]
Broken = Annotated[Actor, Depends(pdp_client.fastapi.Requires("course:view", broken))]
Absent = Annotated[Actor, Depends(pdp_client.fastapi.Requires("course:view", absent))]


def fastapi_app(guard: AnyGuard) -> FastAPI:
    app = FastAPI()

    @app.put("/own/courses/{course_id}")
    @app.get("/own/courses/{course_id}")
    def edit(course_id: str, actor: Editor) -> str:
        return note("PUT", "/own", actor)

    @app.get("/own/broken")
    def has_broken(actor: Broken) -> str:
        return note("GET", "/own/broken", actor)

    @app.get("/own/absent")
    async def has_absent(actor: Absent) -> str:
        return note("GET", "/own/absent", actor)

    @app.api_route("/{rest:path}", methods=METHODS)
    async def anything(request: Request) -> str:
        return note(request.method, request.url.path, request.state.actor)

    pdp_client.fastapi.protect(app, guard, ROUTES)
    return app


# --- Flask --------------------------------------------------------------------------------------


def flask_app(guard: AnyGuard) -> flask.Flask:
    app = flask.Flask("courses")
    requires = pdp_client.flask.requires

    def course(request: flask.Request) -> Resource:
        assert request.view_args is not None
        return Resource("course", request.view_args["course_id"])

    @app.route("/own/courses/<course_id>", methods=["GET", "PUT"])
    @requires("course:edit", course)
    def edit(course_id: str) -> str:
        return note("PUT", "/own", flask.g.actor)

    @app.route("/own/async/<course_id>", methods=["GET", "PUT"])
    @requires("course:edit", course)
    async def edit_async(course_id: str) -> str:
        return note("PUT", "/own", flask.g.actor)

    @app.route("/own/broken")
    @requires("course:view", broken)
    def has_broken() -> str:
        return note("GET", "/own/broken", flask.g.actor)

    @app.route("/own/absent")
    @requires("course:view", absent)
    def has_absent() -> str:
        return note("GET", "/own/absent", flask.g.actor)

    @app.route("/own/raised/<course_id>", methods=["GET", "PUT"])
    def raised(course_id: str) -> str:
        token = pdp_client.session_token(flask.request.headers.items())
        actor = Guard.of(guard).require(token, "course:edit", Resource("course", course_id))
        return note("PUT", "/own", actor)

    @requires("course:edit", course)
    @app.route("/own/upside-down/<course_id>")
    def upside_down(course_id: str) -> str:
        return note("GET", "/own/upside-down", None)

    @app.route("/<path:rest>", methods=METHODS)
    @app.route("/", methods=METHODS)
    def anything(rest: str = "") -> str:
        return note(flask.request.method, flask.request.path, flask.g.actor)

    pdp_client.flask.protect(app, guard, ROUTES)
    return app


# --- Django -------------------------------------------------------------------------------------

requires = pdp_client.django.requires


def course_of_django(request: Any) -> Resource:
    return Resource("course", request.resolver_match.kwargs["course_id"])


@requires("course:edit", course_of_django)
def edit(request: Any, course_id: str) -> HttpResponse:
    return HttpResponse(note("PUT", "/own", request.actor))


@requires("course:edit", course_of_django)
async def edit_async(request: Any, course_id: str) -> HttpResponse:
    return HttpResponse(note("PUT", "/own", request.actor))


class Edit(View):
    @requires("course:edit", course_of_django)
    def put(self, request: Any, course_id: str) -> HttpResponse:
        return HttpResponse(note("PUT", "/own", request.actor))

    get = put


class EditAsync(View):
    @requires("course:edit", course_of_django)
    async def put(self, request: Any, course_id: str) -> HttpResponse:
        return HttpResponse(note("PUT", "/own", request.actor))

    get = put


@requires("course:view", broken)
def has_broken(request: Any) -> HttpResponse:
    return HttpResponse(note("GET", "/own/broken", request.actor))


@requires("course:view", absent)
async def has_absent(request: Any) -> HttpResponse:
    return HttpResponse(note("GET", "/own/absent", request.actor))


def raised(request: Any, course_id: str) -> HttpResponse:
    token = pdp_client.session_token(request.headers)
    actor = Guard.of(settings.PDP_GUARD()).require(
        token, "course:edit", Resource("course", course_id)
    )
    return HttpResponse(note("PUT", "/own", actor))


def anything(request: Any) -> HttpResponse:
    return HttpResponse(note(request.method, request.path_info, request.actor))


urlpatterns = [
    path("own/courses/<course_id>", edit),
    path("own/async/<course_id>", edit_async),
    path("own/class/<course_id>", Edit.as_view()),
    path("own/async-class/<course_id>", EditAsync.as_view()),
    path(
        "own/whole-class/<course_id>",
        requires("course:edit", course_of_django)(EditAsync.as_view()),
    ),
    path("own/raised/<course_id>", raised),
    path("own/broken", has_broken),
    path("own/absent", has_absent),
    re_path(".*", anything),
]


def django_setup(guard: AnyGuard) -> None:
    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=__name__,
            MIDDLEWARE=["pdp_client.django.GuardMiddleware"],
            ALLOWED_HOSTS=["*"],
            PDP_ROUTES=ROUTES,
            LOGGING_CONFIG=None,
        )
        django.setup()
    settings.PDP_GUARD = lambda: guard


def django_wsgi(guard: AnyGuard) -> Any:
    django_setup(guard)
    return get_wsgi_application()


def django_asgi(guard: AnyGuard) -> Any:
    django_setup(guard)
    return get_asgi_application()


# --- on servers ---------------------------------------------------------------------------------


@contextmanager
def on_uvicorn(app: Any, root_path: str = "") -> Iterator[int]:
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, root_path=root_path)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.005)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def on_werkzeug(app: Any) -> AbstractContextManager[int]:
    """It says what was sent, as gunicorn, uWSGI and mod_wsgi do."""
    base = werkzeug.serving.WSGIRequestHandler
    handler = type("Handler", (base,), {"log": lambda *_: None})
    return _wsgi(werkzeug.serving.make_server("127.0.0.1", 0, app, request_handler=handler))


def on_wsgiref(app: Any) -> AbstractContextManager[int]:
    """It does not, as Django's runserver."""
    handler = type("Handler", (WSGIRequestHandler,), {"log_message": lambda *_: None})
    return _wsgi(make_server("127.0.0.1", 0, app, handler_class=handler))


@contextmanager
def _wsgi(server: Any) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving(framework: str, guard: AnyGuard, prefix: str = "") -> Iterator[int]:
    """The port of the application; with a prefix of uvicorn's, or of a mount in Werkzeug."""
    app = {
        "starlette": starlette_app,
        "fastapi": fastapi_app,
        "flask": flask_app,
        "django": django_wsgi,
        "django-asgi": django_asgi,
    }[framework](guard)
    if framework not in {"flask", "django"}:
        server = on_uvicorn(app, prefix)
    else:
        server = on_werkzeug(DispatcherMiddleware(_nothing, {prefix: app}) if prefix else app)
    with server as port:
        yield port


def _nothing(_: Any, start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [])
    return []


class AsIsConnection(HTTPConnection):
    """Sends a target as it is."""

    def _validate_path(self, _: str) -> None:
        return


def send(
    port: int, method: str, target: str, *headers: tuple[str, str]
) -> tuple[HTTPResponse, str]:
    """A request whose target is sent as it is, and the answer with its body."""
    connection = AsIsConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer, answer.read().decode()
    finally:
        connection.close()
