"""The guard in every web framework: the same application, over real HTTP, with a real PDP."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from pdp_client import AsyncGuard, Guard

from clients.python.tests.kit.webs import django_wsgi, flask_app, on_wsgiref, passed, send, serving

FRAMEWORKS = ["starlette", "fastapi", "flask", "django", "django-asgi"]
REFUSALS = {
    case["outcome"]: case
    for case in json.loads(
        (Path(__file__).parents[2] / "conformance" / "refusals.json").read_text(encoding="utf-8")
    )["cases"]
    if "step_up" not in case
}
Web = Callable[..., tuple[HTTPResponse, str]]


@pytest.fixture(scope="module", params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def port(framework: str, harness: Mapping[str, Any]) -> Iterator[int]:
    # The guard for threads with a server of asyncio, and the other way round.
    kind = Guard if framework in {"starlette", "fastapi", "django-asgi"} else AsyncGuard
    guard = kind(harness["pdp"], api_key=harness["api_key"], deadline_seconds=10)
    with serving(framework, guard) as one:
        yield one
    Guard.of(guard).close()


@pytest.fixture
def web(port: int, harness: Mapping[str, Any]) -> Web:
    """`web("GET", "/", "student")`: with the token of that name."""
    passed.clear()

    def ask(method: str, target: str, token: str = "", *headers: tuple[str, str]) -> Any:
        bearer = [("Authorization", f"Bearer {harness['tokens'][token]}")] if token else []
        return send(port, method, target, *bearer, *headers)

    return ask


def is_refusal(answered: tuple[HTTPResponse, str], outcome: str) -> bool:
    """Whether it is that refusal as clients/conformance says, and nothing passed."""
    answer, text = answered
    expected = REFUSALS[outcome]
    body = dict(json.loads(text))
    if "decision_id" in expected["body"]:
        assert len(body["decision_id"]) == 36
        body["decision_id"] = expected["decision_id"]
    assert answer.status == expected["status"]
    assert body == expected["body"]
    found = {name: answer.headers.get_all(name) for name in expected["headers"]}
    assert found == {name: [value] for name, value in expected["headers"].items()}
    return passed == []


def test_an_allowed_user_passes_as_the_verified_actor(web: Web):
    assert web("GET", "/courses/algebra?x=//../", "student")[0].status == 200
    assert web("PUT", "/courses/algebra", "instructor")[0].status == 200
    assert web("POST", "/admin/users", "admin")[0].status == 200
    assert passed == [
        "GET /courses/algebra user_sam",
        "PUT /courses/algebra user_ivan",
        "POST /admin/users user_ada",
    ]


def test_the_token_may_be_in_the_session_cookie(web: Web, harness: Mapping[str, Any]):
    cookie = ("Cookie", f"a=1; __session={harness['tokens']['student']}")
    assert web("GET", "/courses/algebra", "", cookie)[0].status == 200
    passed.clear()
    # The header counts, even if its value is invalid.
    bearer = ("Authorization", "Bearer nonsense")
    assert is_refusal(web("GET", "/courses/algebra", "", cookie, bearer), "unauthenticated")


def test_an_id_is_decoded_once(web: Web):
    assert web("PUT", "/courses/%C3%A9t%C3%A9%201", "instructor")[0].status == 200


@pytest.mark.parametrize("token", ["", "expired", "forged"])
def test_a_request_without_a_valid_token_is_unauthenticated(web: Web, token: str):
    assert is_refusal(web("GET", "/courses/algebra", token), "unauthenticated")


def test_a_denied_user_is_forbidden(web: Web):
    assert is_refusal(web("PUT", "/courses/algebra", "student"), "forbidden")
    assert is_refusal(web("GET", "/courses/algebra", "other_organization"), "forbidden")
    assert is_refusal(web("GET", "/courses/algebra", "banned"), "forbidden")
    assert is_refusal(web("DELETE", "/admin/users", "instructor"), "forbidden")


def test_two_tokens_are_none(web: Web, harness: Mapping[str, Any]):
    again = ("authorization", f"Bearer {harness['tokens']['admin']}")
    assert is_refusal(web("GET", "/admin/x", "admin", again), "unauthenticated")
    other = ("Authorization", "Basic dTpw")
    cookie = ("Cookie", f"__session={harness['tokens']['admin']}")
    assert is_refusal(web("GET", "/admin/x", "admin", other, cookie), "unauthenticated")


def test_a_public_route_has_no_actor(web: Web):
    assert web("GET", "/healthz")[0].status == 200
    assert web("GET", "/healthz", "student")[0].status == 200
    assert passed == ["GET /healthz None"] * 2


def test_the_route_for_get_is_for_head(web: Web):
    answer, text = web("HEAD", "/courses/algebra", "")
    assert (answer.status, text, passed) == (401, "", [])
    assert web("HEAD", "/courses/algebra", "student")[0].status == 200


REFUSED = r"""
GET /|GET /courses|GET /courses/|GET /healthz/|GET /healthz/x|GET /nothing|GET /administrator
POST /courses/algebra|OPTIONS /courses/algebra|DELETE /healthz|get /healthz|put /courses/algebra
GET //healthz|GET //admin/x|GET /admin//x|GET ///|GET /./healthz|GET /x/../healthz
GET /courses/../healthz|GET /courses/%2e%2e/healthz|GET /courses/%2e|GET /courses/..;/x
GET /own%2F..%2Fadmin/x|GET /own/%2e%2e/admin/x|GET /own/..%2Fadmin|GET /own/..%5Cadmin
GET /healthz%2F|GET /%68ealthz|GET /HEALTHZ|GET /healthz%00|GET /healthz%20|GET /healthz;x=1
GET /healthz%3B|GET /healthz%3Fx|GET /healthz#x|GET /healthz%23x|GET /%2Fhealthz|GET /%252Fx
GET /Admin/x|GET /%61dmin/x|GET /admin%2Fx|GET /admin%5Cx|GET /admin\x|GET /courses/a%2Fadmin
GET /courses/algebra%2F|GET /courses/alg%ff|GET /courses/%C0%AF|GET /courses/a%252F
GET /courses/%zz|GET http://127.0.0.1/healthz|GET healthz|GET *|OPTIONS *
"""


def is_sent(framework: str, request_line: str) -> bool:
    """Python's own server, which Flask and Django have here, takes two slashes at the beginning for
    one, before anybody can see them."""
    return framework not in {"flask", "django"} or " //" not in request_line


def test_what_no_route_names_or_has_two_readings_passes_nobody(web: Web, framework: str):
    """Some of these a server refuses by itself, and says so with another status."""
    lines = REFUSED.strip().replace("\n", "|").split("|")
    sent = [line for line in lines if is_sent(framework, line)]
    assert len(sent) > len(lines) - 5
    for line in sent:
        method, target = line.split(" ")
        answer, text = web(method, target, "student")
        assert passed == [], line
        if answer.status == 403:
            assert json.loads(text) == {"error": "forbidden"}, line
        else:
            assert answer.status in {400, 404, 501}, line


def test_where_a_server_does_not_say_what_was_sent_the_path_counts_that_views_are_found_by(
    harness: Mapping[str, Any],
):
    bearer = ("Authorization", f"Bearer {harness['tokens']['student']}")
    passed.clear()
    with Guard(harness["pdp"], api_key=harness["api_key"], deadline_seconds=10) as guard:
        for app in (django_wsgi(guard), flask_app(guard)):
            with on_wsgiref(app) as port:
                for target in (
                    "/healthz/",
                    "/healthz%3Fx",
                    "/healthz;x",
                    "/healthz%25",
                    "/x/../healthz",
                ):
                    assert send(port, "GET", target, bearer)[0].status == 403
                # These are what needs admin:access also for the views.
                for target in (
                    "/%61dmin/x",
                    "/own%2F..%2Fadmin/x",
                    "/admin%2Fx",
                    "/courses/a%2Fadmin",
                ):
                    assert send(port, "GET", target, bearer)[0].status == 403
                assert passed == []


OWN = {
    "starlette": ["courses"],
    "fastapi": ["courses"],
    "flask": ["courses", "async", "raised"],
    "django": ["courses", "async", "class", "async-class", "whole-class", "raised"],
    "django-asgi": ["courses", "async", "class", "async-class", "whole-class", "raised"],
}


def test_what_a_view_requires(web: Web, framework: str):
    for view in OWN[framework]:
        passed.clear()
        for method in ("GET", "PUT"):
            target = f"/own/{view}/algebra"
            assert is_refusal(web(method, target), "unauthenticated")
            assert is_refusal(web(method, target, "student"), "forbidden")
        answer, text = web("PUT", f"/own/{view}/algebra", "instructor")
        assert (answer.status, text.strip('"')) == (200, "PUT /own user_ivan")


# An endpoint of Starlette finds its resource by itself.
@pytest.mark.parametrize(
    "framework", [one for one in FRAMEWORKS if one != "starlette"], indirect=True
)
@pytest.mark.parametrize("view", ["broken", "absent"])
def test_a_resource_that_is_not_found_passes_nobody(web: Web, view: str):
    assert web("GET", f"/own/{view}", "admin")[0].status == 500
    assert passed == []


@pytest.mark.parametrize("framework", ["flask"], indirect=True)
def test_a_decorator_that_flask_does_not_see_passes_nobody(web: Web):
    assert web("GET", "/own/upside-down/algebra", "instructor")[0].status == 500
    assert passed == []


@pytest.mark.parametrize("kind", [Guard, AsyncGuard])
def test_without_an_answer_nobody_passes(
    framework: str,
    kind: type[Guard | AsyncGuard],
    harness: Mapping[str, Any],
    caplog: pytest.LogCaptureFixture,
):
    passed.clear()
    token = harness["tokens"]["instructor"]
    bearer = ("Authorization", f"Bearer {token}")
    caplog.set_level(logging.DEBUG)
    for target, seconds, outcome in (
        ("127.0.0.1:1", 0.1, "unavailable"),
        (harness["pdp"], 10, "refused"),
    ):
        guard = kind(target, deadline_seconds=seconds)  # the real PDP takes nobody without a key
        with serving(framework, guard) as port:
            assert is_refusal(send(port, "GET", "/courses/algebra", bearer), outcome)
            assert is_refusal(send(port, "PUT", "/own/courses/algebra", bearer), outcome)
            assert send(port, "GET", "/healthz")[0].status == 200
            passed.clear()
        Guard.of(guard).close()
    assert (
        "no decision: PERMISSION_DENIED" in caplog.text or "CALLER_UNAUTHENTICATED" in caplog.text
    )
    assert token not in caplog.text


def test_the_prefix_of_a_server_or_of_a_mount_is_not_judged(
    framework: str, harness: Mapping[str, Any]
):
    """Below `/own` everything is public, but these are not the views below it."""
    bearer = ("Authorization", f"Bearer {harness['tokens']['student']}")
    # Uvicorn adds the prefix, for a proxy that has removed it; a mount is part of what is sent.
    sent = "/own" if framework in {"flask", "django"} else ""
    passed.clear()
    guard = Guard(harness["pdp"], api_key=harness["api_key"], deadline_seconds=10)
    with guard, serving(framework, guard, "/own") as port:
        assert is_refusal(send(port, "GET", f"{sent}/admin/x", bearer), "forbidden")
        assert is_refusal(send(port, "GET", f"{sent}/admin/x"), "unauthenticated")
        assert send(port, "GET", f"{sent}/courses/algebra", bearer)[0].status == 200
        assert send(port, "GET", f"{sent}/healthz")[0].status == 200
    assert len(passed) == 2
