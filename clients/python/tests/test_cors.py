"""Preflights are answered by the real CORS layers, and open no other way: in every framework."""

from collections.abc import Iterator
from typing import Any

import flask
import flask_cors
import pdp_client.fastapi
import pdp_client.flask
import pdp_client.starlette
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path
from fastapi import FastAPI
from flask.views import MethodView
from pdp_client import Guard
from pdp_routes import Routes
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from clients.python.tests.kit.answerer import Answerer, denied
from clients.python.tests.kit.in_process import App, on_asgi, on_wsgi
from clients.python.tests.kit.webs import django_setup

ORIGIN = "https://app.example"
ROUTES = Routes({"/**": "app:use"})
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
FORGED = [
    PREFLIGHT,
    {"origin": ORIGIN, "access-control-request-method": "OPTIONS"},
    {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"},
    {"Origin": "null", "Access-Control-Request-Method": ""},
    {"Origin": "", "Access-Control-Request-Method": "GET"},
    {"Access-Control-Request-Method": "GET"},
    {"Origin": ORIGIN},
    PREFLIGHT | {"Access-Control-Request-Headers": "authorization"},
    PREFLIGHT | {"X-HTTP-Method-Override": "GET"},
]
CORS_OF_STARLETTE: dict[str, Any] = {"allow_origins": [ORIGIN], "allow_methods": ["GET"]}
CORS_OF_DJANGO = "corsheaders.middleware.CorsMiddleware"
GUARD_OF_DJANGO = "pdp_client.django.GuardMiddleware"

ran: list[str] = []


def note(request: Any) -> str:
    ran.append(f"{request.method} {request.path}")
    return "ran"


# --- applications with a handler of GET /x, and of OPTIONS /own ---------------------------------


async def endpoint(request: Request) -> PlainTextResponse:
    ran.append(f"{request.method} {request.url.path}")
    return PlainTextResponse("ran")


def starlette(cors: str) -> Starlette:
    routes = [Route("/x", endpoint), Route("/own", endpoint, methods=["OPTIONS"])]
    layers = [Middleware(CORSMiddleware, **CORS_OF_STARLETTE)] if cors == "constructor" else []
    return Starlette(routes=routes, middleware=layers)


def fastapi(cors: str) -> FastAPI:
    layers = [Middleware(CORSMiddleware, **CORS_OF_STARLETTE)] if cors == "constructor" else []
    app = FastAPI(middleware=layers)
    app.add_api_route("/x", endpoint)
    app.add_api_route("/own", endpoint, methods=["OPTIONS"])
    return app


def flask_app() -> flask.Flask:
    app = flask.Flask("cors")

    class Own(MethodView):
        def options(self) -> str:
            return note(flask.request)

    app.add_url_rule("/x", "x", lambda: note(flask.request))
    app.add_url_rule("/own", view_func=Own.as_view("own"))
    app.add_url_rule("/own/f", "f", lambda: note(flask.request), methods=["OPTIONS"])
    return app


def view(request: Any) -> HttpResponse:
    return HttpResponse(note(request))


URLS = tuple(path(name, view) for name in ("x", "own", "own/f"))


def make(setup: str, guard: Guard, *, guarded: bool = True) -> App:
    """`setup`: the framework, and where its CORS layer is added."""
    framework, _, cors = setup.partition(" ")
    if framework.startswith("django"):
        django_setup(guard)
        layers = [GUARD_OF_DJANGO] if guarded else []
        layers[:0] = [CORS_OF_DJANGO] if cors else []
        with override_settings(MIDDLEWARE=layers, PDP_ROUTES=ROUTES):
            return on_wsgi(WSGIHandler()) if framework == "django" else on_asgi(ASGIHandler())
    if framework == "flask":
        app = flask_app()
        layers_of_flask = [lambda: pdp_client.flask.protect(app, guard, ROUTES)] * guarded
        layers_of_flask += [lambda: flask_cors.CORS(app, origins=[ORIGIN])] * bool(cors)
        for add in layers_of_flask if cors != "before" else layers_of_flask[::-1]:
            add()
        return on_wsgi(app)
    one = (starlette if framework == "starlette" else fastapi)(cors)
    if cors == "before":
        one.add_middleware(GZipMiddleware)
        one.add_middleware(CORSMiddleware, **CORS_OF_STARLETTE)
    if guarded:
        module = pdp_client.starlette if framework == "starlette" else pdp_client.fastapi
        module.protect(one, guard, ROUTES)  # type: ignore[attr-defined]
    if cors == "after":
        one.add_middleware(CORSMiddleware, **CORS_OF_STARLETTE)
    return on_asgi(one)


@pytest.fixture(autouse=True)
def of_django(guard: Guard) -> Iterator[None]:
    ran.clear()
    django_setup(guard)
    with override_settings(ROOT_URLCONF=URLS, CORS_ALLOWED_ORIGINS=[ORIGIN]):
        yield


DOCUMENTED = [
    *[f"{name} {cors}" for name in ("starlette", "fastapi") for cors in ("after", "before")],
    *["starlette constructor", "fastapi constructor"],
    *["flask after", "flask before", "django first", "django-asgi first"],
]
WITHOUT = ["starlette", "fastapi", "flask", "django", "django-asgi"]


@pytest.mark.parametrize("setup", DOCUMENTED)
def test_a_preflight_is_answered_without_a_token_and_reaches_nobody(
    setup: str, guard: Guard, answerer: Answerer
):
    status, headers = make(setup, guard)("OPTIONS", "/x", PREFLIGHT)
    assert (status, headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "GET" in headers["access-control-allow-methods"]
    assert (answerer.requests, ran) == ([], [])


@pytest.mark.parametrize("setup", DOCUMENTED)
def test_a_front_end_may_read_a_refusal(setup: str, guard: Guard, answerer: Answerer):
    answerer.says(denied())
    status, headers = make(setup, guard)("GET", "/x", {"Origin": ORIGIN})
    assert (status, headers["access-control-allow-origin"]) == (403, ORIGIN)
    assert len(answerer.requests) == 1
    assert ran == []


@pytest.mark.parametrize("setup", DOCUMENTED + WITHOUT)
def test_a_forged_preflight_reaches_no_handler_of_the_application(
    setup: str, guard: Guard, answerer: Answerer
):
    answerer.says(denied())
    app = make(setup, guard)
    for headers in FORGED:
        for target in ("/own", "/own/f", "/x", "/nothing"):
            for method in ("OPTIONS", "options"):
                app(method, target, headers)
    assert ran == []


@pytest.mark.parametrize("setup", WITHOUT)
def test_positive_control_without_a_guard_it_reaches_one(setup: str, guard: Guard):
    make(setup, guard, guarded=False)("OPTIONS", "/own", PREFLIGHT)
    assert ran == ["OPTIONS /own"]


@pytest.mark.parametrize("setup", DOCUMENTED + WITHOUT)
def test_an_allowed_actor_reaches_a_handler_of_options(
    setup: str, guard: Guard, answerer: Answerer
):
    headers = {"Origin": ORIGIN, "Authorization": "Bearer token"}
    assert make(setup, guard)("OPTIONS", "/own", headers)[0] == 200
    assert ran == ["OPTIONS /own"]
    assert len(answerer.requests) == 1


def test_a_preflight_to_a_view_of_options_in_flask_is_guarded(guard: Guard, answerer: Answerer):
    app = make("flask after", guard)
    assert app("OPTIONS", "/own", PREFLIGHT)[0] == 200
    assert ran == ["OPTIONS /own"]
    answerer.says(denied())
    assert app("OPTIONS", "/own", PREFLIGHT)[0] == 403
    assert len(answerer.requests) == 2


@pytest.mark.parametrize("setup", ["starlette", "django"])
def test_a_cors_layer_behind_the_guard_is_warned_of(
    setup: str, guard: Guard, caplog: pytest.LogCaptureFixture
):
    if setup == "starlette":
        app = starlette("constructor")
        app.add_middleware(GZipMiddleware)
        pdp_client.starlette.protect(app, guard, ROUTES)
    else:
        with override_settings(MIDDLEWARE=[GUARD_OF_DJANGO, CORS_OF_DJANGO], PDP_ROUTES=ROUTES):
            WSGIHandler()
    assert "behind" in caplog.text
