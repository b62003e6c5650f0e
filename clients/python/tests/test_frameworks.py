"""Tests of single frameworks."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from wsgiref.util import setup_testing_defaults

import flask
import pdp_client.fastapi
import pdp_client.flask
import pdp_client.starlette
import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse
from pdp_client import AsyncGuard, Guard
from pdp_routes import PUBLIC, Needs, Routes
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from clients.python.tests.kit.webs import (
    Editor,
    course_of_connection,
    django_wsgi,
    fastapi_app,
    flask_app,
    note,
    passed,
    starlette_app,
)


@pytest.fixture(scope="module")
def guard(harness: Mapping[str, Any]) -> Iterator[Guard]:
    with Guard(harness["pdp"], api_key=harness["api_key"], deadline_seconds=10) as one:
        yield one


@pytest.fixture
def bearer(harness: Mapping[str, Any]) -> Callable[[str], dict[str, str]]:
    passed.clear()
    return lambda name: {"Authorization": f"Bearer {harness['tokens'][name]}"}


# --- WSGI ---------------------------------------------------------------------------------------

WSGI = [
    ({"PATH_INFO": "/healthz"}, 200),
    ({"PATH_INFO": "/healthz", "RAW_URI": "/healthz?a=//b"}, 200),
    ({"PATH_INFO": "/healthz", "REQUEST_URI": "/healthz"}, 200),
    ({"PATH_INFO": "//healthz", "RAW_URI": "//healthz"}, 403),
    ({"PATH_INFO": "//healthz"}, 403),
    ({"PATH_INFO": "/admin/x", "RAW_URI": "/healthz"}, 403),
    ({"PATH_INFO": "/healthz", "RAW_URI": "/x/../healthz"}, 403),
    ({"PATH_INFO": "/healthz", "RAW_URI": "http://a/healthz"}, 403),
    ({"PATH_INFO": "/healthz", "RAW_URI": ""}, 403),
    ({"PATH_INFO": "/healthz", "RAW_URI": "/healthz", "REQUEST_URI": "/healthz?"}, 403),
    # A prefix of the server, of a mount, of a proxy: views are found without it.
    ({"PATH_INFO": "/healthz", "SCRIPT_NAME": "/app"}, 200),
    ({"PATH_INFO": "/healthz", "SCRIPT_NAME": "/app", "RAW_URI": "/app/healthz"}, 200),
    ({"PATH_INFO": "/healthz", "SCRIPT_NAME": "/app", "RAW_URI": "/healthz"}, 200),
    ({"PATH_INFO": "/healthz", "SCRIPT_NAME": "/a/b", "RAW_URI": "/b/healthz"}, 200),
    ({"PATH_INFO": "/admin/x", "SCRIPT_NAME": "/own"}, 401),
    ({"PATH_INFO": "/admin/x", "SCRIPT_NAME": "/own", "RAW_URI": "/own/admin/x"}, 401),
    ({"PATH_INFO": "/admin/x", "SCRIPT_NAME": "/own", "RAW_URI": "/own/admin%2Fx"}, 403),
    ({"PATH_INFO": "/healthz", "SCRIPT_NAME": "/own", "RAW_URI": "/own//healthz"}, 403),
    ({"PATH_INFO": "/healthz", "SCRIPT_NAME": "/own", "RAW_URI": "/own/%2e/healthz"}, 403),
    ({"PATH_INFO": "/healthz", "HTTP_X_ORIGINAL_URL": "/admin/x"}, 200),
    ({"PATH_INFO": "/admin/x", "HTTP_X_ORIGINAL_URL": "/healthz"}, 401),
    ({"PATH_INFO": "/admin/x", "HTTP_X_HTTP_METHOD_OVERRIDE": "GET"}, 401),
    ({"PATH_INFO": "/courses/\xff"}, 403),
    ({"PATH_INFO": ""}, 403),
]


@pytest.mark.parametrize("make", [flask_app, django_wsgi])
@pytest.mark.parametrize(("said", "status"), WSGI)
def test_what_a_wsgi_server_says_twice_must_be_the_same(
    guard: Guard, make: Any, said: Mapping[str, str], status: int
):
    environ: dict[str, Any] = dict(said)
    setup_testing_defaults(environ)
    passed.clear()
    answered: list[str] = []
    body = make(guard)(environ, lambda status, headers: answered.append(status))
    assert answered[0].startswith(str(status)), b"".join(body)
    assert bool(passed) == (status == 200)


def test_a_handler_of_all_exceptions_in_flask_sees_no_refusal(guard: Guard, bearer: Any):
    app = flask.Flask("courses")
    pages = flask.Blueprint("pages", "pages")

    @pages.errorhandler(Exception)
    def fine(_: Exception) -> str:
        return "fine"

    @pages.before_request
    def before() -> None:
        note("before", "", None)

    @pages.get("/own/x")
    @pdp_client.flask.requires("admin:access")
    def own() -> str:
        return note("GET", "/own/x", None)

    app.register_blueprint(pages)
    routes = Routes({"/own/**": PUBLIC, "/admin/**": "admin:access"})
    pdp_client.flask.protect(app, guard, routes)
    client = app.test_client()
    assert client.get("/admin/x").status_code == 401
    assert client.get("/nothing").status_code == 403
    assert passed == []
    assert client.get("/own/x", headers=bearer("student")).status_code == 403
    assert passed == ["before  None"]


# --- ASGI ---------------------------------------------------------------------------------------

Message = dict[str, Any]


def ask(
    app: Any, method: str, path: str, headers: Mapping[str, str] = {}, **scope: Any
) -> list[Message]:
    """The messages of an application to an ASGI server. Each time in a new event loop."""
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs, **scope}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        kind = "websocket.connect" if scope["type"] == "websocket" else "http.request"
        return {"type": kind, "body": b""}

    asyncio.run(app({"query_string": b"", "root_path": "", **scope}, receive, send))
    return sent


def test_a_handler_of_all_exceptions_in_fastapi_sees_no_refusal(guard: Guard, bearer: Any):
    app = FastAPI()

    @app.exception_handler(Exception)
    def fine(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"fine": True})

    @app.put("/courses/{course_id}")
    def edit(actor: Editor) -> str:
        return note("PUT", "", actor)

    pdp_client.fastapi.protect(app, guard)
    answer, body = ask(app, "PUT", "/courses/algebra", bearer("student"))
    assert (answer["status"], json.loads(body["body"])["error"]) == (403, "forbidden")
    assert passed == []


def test_a_dependency_of_an_application_that_is_not_protected_passes_nobody(bearer: Any):
    app = FastAPI()

    @app.put("/courses/{course_id}")
    def edit(actor: Editor) -> str:
        return note("PUT", "", actor)

    with pytest.raises(AttributeError, match="pdp"):
        ask(app, "PUT", "/courses/algebra", bearer("admin"))
    assert passed == []


def test_a_guard_serves_one_event_loop_after_the_other(guard: Guard, bearer: Any):
    app = fastapi_app(AsyncGuard.of(guard))
    for _ in range(3):
        _, body = ask(app, "GET", "/courses/algebra", bearer("student"))
        assert body["body"] == b'"GET /courses/algebra user_sam"'


def test_below_a_mounted_application_the_whole_path_counts(guard: Guard, bearer: Any):
    async def endpoint(request: Any) -> PlainTextResponse:
        return PlainTextResponse(note("GET", request.url.path, request.state.actor))

    inner = Starlette(routes=[Route("/x", endpoint)])
    app = Starlette(routes=[Mount("/admin", inner)])
    pdp_client.starlette.protect(app, guard, Routes({"/admin/**": "admin:access", "/x": PUBLIC}))
    assert ask(app, "GET", "/admin/x", bearer("student"))[0]["status"] == 403
    assert ask(app, "GET", "/admin/x", bearer("admin"))[0]["status"] == 200
    assert passed == ["GET /admin/x user_ada"]


ASGI = [
    ({"path": "/healthz", "raw_path": b"/healthz"}, 200),
    ({"path": "/healthz"}, 200),
    ({"path": "/healthz", "raw_path": None}, 200),
    ({"path": "/admin/x", "raw_path": b"/healthz"}, 403),
    ({"path": "/healthz", "raw_path": b"/x/../healthz"}, 403),
    ({"path": "/healthz", "raw_path": b""}, 403),
    ({"path": "/courses/\ufffd", "raw_path": b"/courses/%ff"}, 403),
    ({"path": "/courses/é", "raw_path": "/courses/é".encode()}, 403),
    ({"path": "/courses/\ufffd", "raw_path": b"/courses/\xff"}, 403),
    ({"path": "/healthz%"}, 403),
    ({"path": "/healthz", "method": "get"}, 403),
    ({"path": "/own/admin/x", "root_path": "/own", "raw_path": b"/own/admin/x"}, 401),
    ({"path": "/admin/x", "root_path": "/own", "raw_path": b"/admin/x"}, 401),
    ({"path": "/app/healthz", "root_path": "/app", "raw_path": b"/app/healthz"}, 200),
    ({"path": "/app/healthz", "root_path": "/app", "raw_path": b"/healthz"}, 200),
    ({"path": "/app/healthz", "root_path": "/app", "raw_path": b"/%61pp/healthz"}, 200),
    ({"path": "/apphealthz", "root_path": "/app"}, 403),
    ({"path": "/app", "root_path": "/app"}, 403),
]


@pytest.mark.parametrize(("said", "status"), ASGI)
def test_what_an_asgi_server_says_twice_must_be_the_same(
    guard: Guard, said: Mapping[str, Any], status: int
):
    passed.clear()
    sent = ask(starlette_app(guard), **{"method": "GET", **said})
    assert sent[0]["status"] == status
    assert bool(passed) == (status == 200)


def test_an_actor_is_not_seen_by_another_request_of_the_same_connection(guard: Guard, bearer: Any):
    """Some servers give one `state` to all requests of a connection."""
    state: dict[str, Any] = {"pool": 1}
    sent = ask(starlette_app(guard), "GET", "/courses/algebra", bearer("student"), state=state)
    assert sent[0]["status"] == 200
    assert state == {"pool": 1}


def websockets(guard: Guard) -> FastAPI:
    app = FastAPI()

    @app.websocket("/courses/{course_id}")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(note("WS", socket.url.path, socket.state.actor))
        await socket.close()

    @app.websocket("/own/courses/{course_id}")
    async def edit(socket: WebSocket, actor: Editor) -> None:
        await socket.accept()
        await socket.send_text(note("WS", "/own", actor))
        await socket.close()

    @app.websocket("/own/late/{course_id}")
    async def late(socket: WebSocket) -> None:
        await socket.accept()
        course = course_of_connection(socket)
        await AsyncGuard.of(guard).require("", "course:edit", course)
        note("WS", "/own/late", None)

    routes = Routes({"GET /courses/{id}": Needs("course:view", "course/{id}"), "/own/**": PUBLIC})
    pdp_client.fastapi.protect(app, guard, routes)
    return app


def shake_hands(app: Any, path: str, headers: Mapping[str, str], **scope: Any) -> list[Message]:
    return ask(app, "", path, headers, type="websocket", subprotocols=[], **scope)


@pytest.mark.parametrize("path", ["/courses/algebra", "/own/courses/algebra"])
def test_a_websocket_is_refused_before_it_is_accepted(guard: Guard, bearer: Any, path: str):
    app = websockets(guard)
    scope = {"extensions": {"websocket.http.response": {}}}
    for headers, status in (({}, 401), (bearer("other_organization"), 403)):
        answer, body = shake_hands(app, path, headers, **scope)
        assert (answer["type"], answer["status"]) == ("websocket.http.response.start", status)
        assert set(json.loads(body["body"])) == {"error", "decision_id"}
    assert passed == []
    accepted, text, _ = shake_hands(app, path, bearer("instructor"), **scope)
    assert accepted["type"] == "websocket.accept"
    assert text["text"].endswith("user_ivan")


@pytest.mark.parametrize("path", ["/nothing", "/courses/a;b"])
def test_a_websocket_of_no_route_is_refused(guard: Guard, bearer: Any, path: str):
    (closed,) = shake_hands(websockets(guard), path, bearer("admin"))
    assert closed["type"] == "websocket.close"


@pytest.mark.parametrize("path", ["/courses/algebra", "/own/courses/algebra", "/own/late/algebra"])
def test_a_websocket_is_closed_where_the_server_has_no_other_answer(guard: Guard, path: str):
    passed.clear()
    *accepted, closed = shake_hands(websockets(guard), path, {})
    assert [event["type"] for event in accepted] == ["websocket.accept"] * ("late" in path)
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
    assert passed == []
