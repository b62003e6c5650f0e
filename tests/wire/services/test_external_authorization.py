"""A request of Envoy becomes a question, and a ruling becomes Envoy's response."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from google.rpc import code_pb2
from hypothesis import given
from hypothesis import strategies as st

from pdp.errors import (
    AuditUnavailable,
    BrokenReference,
    CallerNotAllowed,
    InvalidRequest,
    ShuttingDown,
)
from pdp.model import (
    Actor,
    Decision,
    Effect,
    HttpRequest,
    Reason,
    RefusedToken,
    VerifiedToken,
)
from pdp.ruling import Ruling
from pdp.wire import external_authorization_methods
from pdp.wire.callers import ANONYMOUS
from pdp.wire.external_auth_pb2 import AttributeContext, CheckRequest, CheckResponse, HeaderMap
from tests.kit.waiting import run

TOKENS = json.loads(
    (Path(__file__).parents[3] / "clients" / "conformance" / "tokens.json").read_text()
)["cases"]
ACTOR = Actor("user_1", "sess_1", "org_1")
HttpRequestMessage = AttributeContext.HttpRequest
Headers = Sequence[tuple[str, str]]


class Asked:
    """Takes the place of the authorizer: keeps its questions, and answers what the test says."""

    def __init__(self, ruling: Ruling | Exception | None = None) -> None:
        self.ruling = ruling
        self.token = ""
        self.request = HttpRequest("", "", {})

    async def rule_request(self, token: str, request: HttpRequest, *_: Any) -> Ruling | None:
        self.token, self.request = token, request
        if isinstance(self.ruling, Exception):
            raise self.ruling
        return self.ruling


def ruling(decision: Decision, actor: Actor | None = ACTOR) -> Ruling:
    token: VerifiedToken | RefusedToken = RefusedToken(decision.reason, "0123")
    if actor is not None:
        token = VerifiedToken(actor, "https://clerk.example.test", "key", 0.0, {})
    return Ruling(token, [decision], ["01920000-0000-7000-8000-000000000000"], 7, 0.0, None)


def allowed(actor: Actor = ACTOR) -> Ruling:
    return ruling(Decision(Effect.ALLOW, Reason.ALLOWED_BY_RULE), actor)


def joined(headers: Headers) -> HttpRequestMessage:
    """Headers as Envoy sends them: names in lower case, repeated ones joined."""
    values: dict[str, str] = {}
    for name, value in headers:
        key, between = name.lower(), "; " if name.lower() == "cookie" else ","
        values[key] = f"{values[key]}{between}{value}" if key in values else value
    entries = [
        AttributeContext.HeaderEntry(key=key.encode(), value=value.encode("latin-1"))
        for key, value in values.items()
    ]
    return HttpRequestMessage(method=b"GET", path=b"/x", host=b"h", headers=entries)


def raw(headers: Headers) -> HttpRequestMessage:
    """Headers as Envoy sends them with encode_raw_headers."""
    entries = [
        HeaderMap.Header(key=name.lower().encode(), raw_value=value.encode("latin-1"))
        for name, value in headers
    ]
    header_map = HeaderMap(headers=entries)
    return HttpRequestMessage(method=b"GET", path=b"/x", host=b"h", header_map=header_map)


def check(
    asked: Asked, http: HttpRequestMessage | None = None, cookie: str = "__session"
) -> CheckResponse:
    [method] = external_authorization_methods(cast(Any, asked), lambda _: None, cookie)
    http = HttpRequestMessage(method=b"GET", path=b"/x") if http is None else http
    request = CheckRequest(attributes=AttributeContext(request=AttributeContext.Request(http=http)))
    return cast(CheckResponse, run(method.answer(request, ANONYMOUS)))


# --- the question ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", TOKENS, ids=lambda case: case["name"])
@pytest.mark.parametrize("sent", [joined, raw])
def test_the_token_is_that_of_the_guards(case: dict[str, Any], sent: Any) -> None:
    asked = Asked()
    headers = [tuple(pair) for pair in case["headers"]]
    check(asked, sent(headers), case.get("cookie_name", "__session"))
    # Envoy sends two headers as one with a comma. So a comma is two; no token has one.
    commas = any(name == "Authorization" and "," in value for name, value in headers)
    assert asked.token == ("" if commas else case["token"])


def test_the_original_path_counts_if_envoy_sends_it() -> None:
    asked = Asked()
    http = raw([(":path", "/\xff?q"), ("x", "y")])
    http.path = b"/!?q"
    check(asked, http)
    assert asked.request == ("GET", "/\xff?q", {"http": {"method": "GET", "host": "h"}})


def test_where_envoy_hides_what_is_not_utf_8_its_sign_for_that_has_two_readings() -> None:
    asked = Asked()
    for http in (joined([(":path", "/a!?b")]), HttpRequestMessage()):
        http.path = b"/a!?b"
        check(asked, http)
        assert asked.request.path.startswith("/a\xff")
    check(asked, raw([(":path", "/a!?b")]))
    assert asked.request.path == "/a!?b"


def test_conditions_read_method_path_and_host_as_far_as_they_are_plain() -> None:
    asked = Asked()
    check(asked, HttpRequestMessage(method=b"PUT", path=b"/a?b=c", host=b"x.test:80"))
    assert asked.request.context == {"http": {"method": "PUT", "path": "/a", "host": "x.test:80"}}
    check(asked, HttpRequestMessage(method=b"G\0", path=b"/\n", host=b"\xc3\xa9"))
    assert asked.request == ("G\0", "/\n", {"http": {}})


def test_what_is_not_about_http_is_the_callers_mistake() -> None:
    [method] = external_authorization_methods(cast(Any, Asked()), lambda _: None, "__session")
    with pytest.raises(InvalidRequest):
        run(method.answer(CheckRequest(), ANONYMOUS))


@given(st.binary(max_size=60))
def test_no_bytes_of_a_client_fail_to_parse(value: bytes) -> None:
    """In a message with UTF-8 in these places a client could send what has no answer."""
    entry = AttributeContext.HeaderEntry(key=value, value=value)
    http = HttpRequestMessage(method=value, path=value, host=value, headers=[entry])
    request = CheckRequest(attributes=AttributeContext(request=AttributeContext.Request(http=http)))
    again = CheckRequest.FromString(request.SerializeToString())
    assert check(Asked(allowed()), again.attributes.request.http).status.code == 0


# --- the answer -----------------------------------------------------------------------------------

IDENTITY = [
    *("x-pdp-user-id", "x-pdp-session-id", "x-pdp-organization-id"),
    *("x-pdp-impersonator-id", "x-pdp-decision-id"),
]


def test_an_allow_sets_the_headers_of_the_actor_and_removes_the_others() -> None:
    response = check(Asked(allowed()))
    assert response.status.code == 0
    options = response.ok_response.headers
    assert {option.header.key: option.header.value for option in options} == {
        "x-pdp-user-id": "user_1",
        "x-pdp-session-id": "sess_1",
        "x-pdp-organization-id": "org_1",
        "x-pdp-decision-id": "01920000-0000-7000-8000-000000000000",
    }
    assert {option.append_action for option in options} == {2}  # OVERWRITE_IF_EXISTS_OR_ADD
    removed = set(response.ok_response.headers_to_remove)
    # Envoy removes after it has set.
    assert not removed & {option.header.key for option in options}
    assert "x-pdp-impersonator-id" in removed
    assert {name.replace("-", "_") for name in IDENTITY} <= removed


def test_what_is_public_passes_as_nobody() -> None:
    response = check(Asked(None))
    assert response.WhichOneof("http_response") == "ok_response"
    assert not response.ok_response.headers
    assert {*IDENTITY, "x-http-method-override"} <= set(response.ok_response.headers_to_remove)


@pytest.mark.parametrize(
    "name",
    [
        *("x-pdp-user-id", "x_pdp_user_id", "x-pdp_user-id", "x.pdp.user.id", "X-Pdp-Role"),
        *("x-pdp-", "x_pdp_", "x!pdp~is-admin", "x-http-method-override", "x_http_method_override"),
        *("x-method-override", "x-http-method", "x.http.method", "x-original-url", "X_Rewrite_URL"),
    ],
)
@pytest.mark.parametrize("sent", [joined, raw])
@pytest.mark.parametrize("said", [None, allowed(Actor("u", "s"))], ids=["public", "allowed"])
def test_what_an_upstream_could_take_for_ours_is_removed(
    name: str, sent: Any, said: Ruling | None
) -> None:
    response = check(Asked(said), sent([(name, "1"), (name, "2")]))
    set_by_us = {header.header.key for header in response.ok_response.headers}
    assert name.lower() in set_by_us | set(response.ok_response.headers_to_remove)


@pytest.mark.parametrize("value", ["Upgrade, X-Pdp-Impersonator-Id", "x_pdp_user_id,upgrade"])
def test_a_proxy_behind_envoy_keeps_the_headers_of_the_actor(value: str) -> None:
    response = check(Asked(allowed()), raw([("connection", value)]))
    headers = {header.header.key: header.header.value for header in response.ok_response.headers}
    assert headers["connection"] == "upgrade"
    assert "connection" not in response.ok_response.headers_to_remove


def test_other_headers_are_left_alone() -> None:
    names = [
        "x-pdp",
        "xpdp-user-id",
        "ax-pdp-user-id",
        "authorization",
        "cookie",
        "x-user-id",
        "connection",
    ]
    response = check(Asked(None), raw([(name, "1") for name in names]))
    assert not response.ok_response.headers
    assert not set(names) & set(response.ok_response.headers_to_remove)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_whatever_an_id_is_its_header_is_one_plain_value_and_its_own(text: str) -> None:
    response = check(Asked(allowed(Actor(text, "s", text, text))))
    values = {header.header.key: header.header.value for header in response.ok_response.headers}
    value = values["x-pdp-user-id"]
    assert value.isascii()
    assert value.isprintable()
    assert not set(value) & set(' ,;"\\\r\n')
    assert values["x-pdp-organization-id"] == values["x-pdp-impersonator-id"] == value
    other = check(Asked(allowed(Actor(text + "%", "s"))))
    assert other.ok_response.headers[0].header.value != value


@pytest.mark.parametrize(
    ("reason", "actor", "status", "word", "code"),
    [
        (Reason.TOKEN_EXPIRED, None, 401, "unauthenticated", code_pb2.UNAUTHENTICATED),
        (Reason.SESSION_REVOKED, ACTOR, 401, "unauthenticated", code_pb2.UNAUTHENTICATED),
        (Reason.PERMISSION_NOT_GRANTED, ACTOR, 403, "forbidden", code_pb2.PERMISSION_DENIED),
        (Reason.ROUTE_UNKNOWN, ACTOR, 403, "forbidden", code_pb2.PERMISSION_DENIED),
        (Reason.PATH_AMBIGUOUS, ACTOR, 403, "forbidden", code_pb2.PERMISSION_DENIED),
    ],
)
def test_a_denial_says_what_a_guard_says(
    reason: Reason, actor: Actor | None, status: int, word: str, code: int
) -> None:
    response = check(Asked(ruling(Decision(Effect.DENY, reason), actor)))
    denied = response.denied_response
    assert (response.status.code, denied.status.code) == (code, status)
    assert json.loads(denied.body) == {
        "error": word,
        "decision_id": "01920000-0000-7000-8000-000000000000",
    }
    headers = {header.header.key: header.header.value for header in denied.headers}
    challenge = {"www-authenticate": "Bearer"} if status == 401 else {}
    assert headers == {
        "content-type": "application/json",
        "cache-control": "no-store",
        **challenge,
    }


def test_an_allow_of_nobody_is_none() -> None:
    """It cannot be; if it were, it would not pass."""
    response = check(Asked(ruling(Decision(Effect.ALLOW, Reason.ALLOWED_BY_RULE), None)))
    assert response.denied_response.status.code == 403


@pytest.mark.parametrize(
    ("error", "denied"),
    [
        (AuditUnavailable("x"), True),
        (BrokenReference("x", "resource", "y"), True),
        (ZeroDivisionError(), True),
        (ShuttingDown("x"), False),
        (CallerNotAllowed("x"), False),
        (InvalidRequest(), False),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_an_error_becomes_a_denial_unless_the_caller_asks_wrongly(
    error: Exception, denied: bool
) -> None:
    [method] = external_authorization_methods(cast(Any, Asked()), lambda _: None, "__session")
    assert method.in_place_of is not None
    response = method.in_place_of(error)
    assert (response is not None) is denied
    if isinstance(response, CheckResponse):
        assert response.status.code == code_pb2.UNAVAILABLE
        assert response.denied_response.status.code == 503
        assert json.loads(response.denied_response.body) == {"error": "unavailable"}
