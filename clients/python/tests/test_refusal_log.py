"""The guard logs requests that its route map refuses."""

import logging
from collections.abc import Mapping
from typing import Any

import pytest
from pdp_client import RouteRefused
from pdp_client.adapting import routed
from pdp_routes import Routes

from clients.python.tests.kit.answerer import Answerer, denied
from clients.python.tests.kit.routers import Case, send

ROUTES = Routes({"/admin/**": "admin:access"})
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyXzEifQ.c2lnbmF0dXJl"
CASE: Mapping[str, Any] = {
    "root": "/api",
    "says": "without prefix",
    "setting": "",
    "mount": "",
    "outside": False,
    "forwarded": "",
    "change": None,
    "websocket": False,
    "method": "GET",
}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "pdp_client"]


@pytest.mark.parametrize("framework", ["starlette", "fastapi", "flask", "django", "django-asgi"])
def test_a_refused_route_is_logged_with_method_path_and_reason(
    framework: Any, guard: Any, answerer: Answerer, caplog: pytest.LogCaptureFixture
):
    send(Case(framework=framework, target="/admin//x?secret=1", **CASE), guard)
    assert lines(caplog) == ["route refused: 'GET' '/admin//x': ambiguous_path"]
    assert caplog.records[0].levelno == logging.WARNING
    caplog.clear()
    answerer.says(denied())  # which is in the audit log
    send(Case(framework=framework, target="/admin/x", **CASE), guard)
    assert lines(caplog) == []


@pytest.mark.parametrize(
    ("method", "path", "line"),
    [
        ("GET", "/nothing", "'GET' '/nothing': no_route"),
        ("GET", "/a\nroute refused: b", r"'GET' '/a\nroute refused: b': ambiguous_path"),
        ("GET", "/\x1b[2J\u202e\u0085", r"'GET' '/\x1b[2J\u202e\x85': ambiguous_path"),
        ("GET\r\n", "/nothing", r"'GET\r\n' '/nothing': no_route"),
        ("GET", f"/x/{TOKEN}", "'GET' '/x/<token>': no_route"),
        ("GET", "/" + "a" * 9000, "'GET' '/" + "a" * 199 + "': ambiguous_path"),
        ("X" * 9000, "/a", "'" + "X" * 31 + " '/a': no_route"),
        ("GET", "/\udce9", r"'GET' '/\udce9': ambiguous_path"),
    ],
)
def test_a_line_of_the_log_is_one_short_line_in_ascii_without_tokens(
    method: str, path: str, line: str, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(RouteRefused):
        routed(ROUTES, method, path, ())
    assert lines(caplog) == [f"route refused: {line}"]
