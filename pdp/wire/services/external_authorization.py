"""Envoy's Authorization: CheckRequest -> token and request -> ruling -> what Envoy does with it.

Of a request count its method, path, host and token, and what an upstream could take for our own
headers, which is removed. Nothing else that Envoy tells is read: neither `x-forwarded-*` nor
`x-envoy-*` nor what its configuration adds.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

from google.rpc import code_pb2
from pdp_client.headers import session_token

from pdp.authorizer import Authorizer, Ruling
from pdp.errors import CallerError, InvalidRequest, ShuttingDown, Violation
from pdp.model import Actor, DenialKind, Effect, HttpRequest, VerifiedToken
from pdp.wire import external_auth_pb2
from pdp.wire.callers import Caller
from pdp.wire.external_auth_pb2 import (
    AttributeContext,
    CheckRequest,
    CheckResponse,
    DeniedHttpResponse,
    HeaderValueOption,
    OkHttpResponse,
)
from pdp.wire.methods import Method
from pdp.wire.services.decision import Count

SERVICE = external_auth_pb2.DESCRIPTOR.services_by_name["Authorization"].full_name

REQUEST_BYTES_MAX: Final = 256 * 1024
"""Envoy takes 60 KiB of headers, if not told otherwise, and tells of some twice."""

_OURS: Final = "x-pdp-"
# By which frameworks take a request for one of another method or path than was decided on.
_OVERRIDES: Final = frozenset(
    {
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
    }
)
_IDENTITY: Final = tuple(
    f"{_OURS}{name}-id" for name in ("user", "session", "organization", "impersonator", "decision")
)
_ALWAYS_REMOVED: Final = frozenset(
    spelling for name in (*_IDENTITY, *_OVERRIDES) for spelling in (name, name.replace("-", "_"))
)
"""Also where Envoy's configuration keeps from us what headers there are."""
_FOLDED: Final = re.compile(r"[^a-z0-9]")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")

Headers = Sequence[tuple[str, str]]
"""Name in lower case, value; a character for each byte."""


def external_authorization_methods(
    authorizer: Authorizer, count: Count, session_cookie: str
) -> Sequence[Method]:
    """The method of Authorization, which Envoy's filter ext_authz calls."""

    async def answer(request: CheckRequest, caller: Caller) -> CheckResponse:
        http, headers = _read(request)
        token = session_token(_apart(headers), session_cookie)
        ruling = await authorizer.rule_request(token, _request(http), caller.name)
        if ruling is not None:
            count(ruling.decisions)
        return _response(ruling, headers)

    method = Method(
        SERVICE,
        "Check",
        "decide",
        CheckRequest,
        answer,
        REQUEST_BYTES_MAX,
        in_place_of=_unavailable,
    )
    return (method,)


# --- what Envoy tells -----------------------------------------------------------------------------


def _read(request: CheckRequest) -> tuple[AttributeContext.HttpRequest, Headers]:
    """Raises InvalidRequest where it is not about an HTTP request."""
    if not request.attributes.request.HasField("http"):
        raise InvalidRequest(Violation("attributes.request.http", "must be there"))
    http = request.attributes.request.http
    return http, [
        *((_text(one.key).lower(), _text(one.value)) for one in http.headers),
        *(
            (_text(one.key).lower(), _text(one.raw_value or one.value))
            for one in http.header_map.headers
        ),
    ]


def _request(http: AttributeContext.HttpRequest) -> HttpRequest:
    method = _text(http.method)
    raw = [one.raw_value for one in http.header_map.headers if one.key == b":path"]
    # Where Envoy does not tell headers as they came, it writes `!` for what is not UTF-8.
    path = _text(raw[0]) if len(raw) == 1 else _text(http.path).replace("!", "\xff")
    values = {"method": method, "path": path.partition("?")[0], "host": _text(http.host)}
    # What is not there, conditions cannot mistake for something else.
    known = {name: value for name, value in values.items() if _PRINTABLE.fullmatch(value)}
    return HttpRequest(method, path, {"http": known})


def _apart(headers: Headers) -> Headers:
    """Envoy joins the values of an Authorization that came twice by a comma."""
    return [
        (name, part)
        for name, value in headers
        for part in (value.split(",") if name == "authorization" else (value,))
    ]


def _text(value: bytes) -> str:
    return value.decode("latin-1")


# --- what it is told ------------------------------------------------------------------------------


def _response(ruling: Ruling | None, headers: Headers) -> CheckResponse:
    if ruling is None:
        return _allowed({}, headers)
    [decision], [decision_id] = ruling.decisions, ruling.decision_ids
    if decision.effect is Effect.ALLOW and isinstance(ruling.token, VerifiedToken):
        return _allowed(_identity(ruling.token.actor, decision_id), headers)
    if decision.reason.denial_kind is DenialKind.UNAUTHENTICATED:
        body = {"error": "unauthenticated", "decision_id": decision_id}
        challenge = (("www-authenticate", "Bearer"),)
        return _denied(code_pb2.UNAUTHENTICATED, decision.reason.name, 401, body, challenge)
    body = {"error": "forbidden", "decision_id": decision_id}
    return _denied(code_pb2.PERMISSION_DENIED, decision.reason.name, 403, body)


def _identity(actor: Actor, decision_id: str) -> dict[str, str]:
    values = (
        actor.user_id,
        actor.session_id,
        actor.organization_id,
        actor.impersonator_id,
        decision_id,
    )
    # Clerk's ids stay as they are; of others nothing ends the header or makes a list of it.
    return {
        name: quote(value, safe="")
        for name, value in zip(_IDENTITY, values, strict=True)
        if value is not None
    }


def _allowed(identity: dict[str, str], headers: Headers) -> CheckResponse:
    seen = {name for name, _ in headers if _is_taken_for_ours(name)}
    # Envoy leaves this one alone where it asks for a websocket. A proxy behind Envoy would remove
    # the headers that it names.
    hops = {"connection": "upgrade"} if _names_ours(headers) else {}
    return CheckResponse(
        status=CheckResponse.Status(code=code_pb2.OK),
        ok_response=OkHttpResponse(
            headers=_options((identity | hops).items()),
            # Envoy removes after it has set.
            headers_to_remove=sorted((_ALWAYS_REMOVED | seen) - identity.keys()),
        ),
    )


def _is_taken_for_ours(name: str) -> bool:
    """WSGI and CGI servers make `-` and `_`, some all punctuation, the same in variables."""
    folded = _FOLDED.sub("-", name)
    return folded.startswith(_OURS) or folded in _OVERRIDES


def _names_ours(headers: Headers) -> bool:
    return any(
        _is_taken_for_ours(word.strip().lower())
        for name, value in headers
        if name == "connection"
        for word in value.split(",")
    )


def _denied(
    code: int,
    message: str,
    http_status: int,
    body: dict[str, str],
    headers: Sequence[tuple[str, str]] = (),
) -> CheckResponse:
    # Without a code it would be an allow.
    return CheckResponse(
        status=CheckResponse.Status(code=code, message=message),
        denied_response=DeniedHttpResponse(
            status=DeniedHttpResponse.HttpStatus(code=http_status),
            headers=_options(
                (
                    ("content-type", "application/json"),
                    ("cache-control", "no-store"),
                    *headers,
                )
            ),
            body=json.dumps(body, separators=(",", ":")),
        ),
    )


def _unavailable(error: Exception) -> CheckResponse | None:
    """There is no answer: said as a denial, because an Envoy that its operator told to let pass
    what it has no answer to (`failure_mode_allow`) refuses that all the same.

    But a status says what Envoy does wrong, and what another process may still answer.
    """
    if isinstance(error, CallerError | InvalidRequest | ShuttingDown):
        return None
    body, retry = {"error": "unavailable"}, (("retry-after", "1"),)
    return _denied(code_pb2.UNAVAILABLE, type(error).__name__, 503, body, retry)


def _options(headers: Iterable[tuple[str, str]]) -> list[HeaderValueOption]:
    return [
        HeaderValueOption(
            header=HeaderValueOption.HeaderValue(key=key, value=value),
            append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        for key, value in headers
    ]
