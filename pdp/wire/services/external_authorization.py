"""Envoy's Authorization: CheckRequest -> token and request -> ruling -> CheckResponse.

Reads only the method, path, host and token of a request. Ignores all other headers from Envoy:
`x-forwarded-*`, `x-envoy-*`, and those that its configuration adds. Removes headers that an
upstream could take for ours.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from google.rpc import code_pb2
from pdp_client.headers import session_token
from pdp_client.refusals import reverification, step_up_challenge
from pdp_client.values import Factor, StepUp

from pdp import model
from pdp.authorizer import Authorizer
from pdp.errors import CallerError, InvalidRequest, ShuttingDown, Violation
from pdp.model import Actor, DenialKind, Effect, HttpRequest, VerifiedToken
from pdp.ruling import Ruling
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
"""By default, Envoy accepts 60 KiB of headers, and sends some of them twice."""

_OURS: Final = "x-pdp-"
# With these, frameworks handle another method or path than the one that was decided.
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
"""Removed even if Envoy is configured not to send us the headers of requests."""
_FOLDED: Final = re.compile(r"[^a-z0-9]")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")

_FACTORS: Final = {factor: Factor[factor.name] for factor in model.Factor}

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


# --- requests -------------------------------------------------------------------------------------


def _read(request: CheckRequest) -> tuple[AttributeContext.HttpRequest, Headers]:
    """Raises InvalidRequest if it describes no HTTP request."""
    if not request.attributes.request.HasField("http"):
        raise InvalidRequest(Violation("attributes.request.http", "must be there"))
    http = request.attributes.request.http
    return http, [
        *((_text(header.key).lower(), _text(header.value)) for header in http.headers),
        *(
            (_text(header.key).lower(), _text(header.raw_value or header.value))
            for header in http.header_map.headers
        ),
    ]


def _request(http: AttributeContext.HttpRequest) -> HttpRequest:
    method = _text(http.method)
    raw = [header.raw_value for header in http.header_map.headers if header.key == b":path"]
    # Without raw headers, Envoy replaces bytes that are not UTF-8 by `!`.
    path = _text(raw[0]) if len(raw) == 1 else _text(http.path).replace("!", "\xff")
    values = {"method": method, "path": path.partition("?")[0], "host": _text(http.host)}
    # A value that is left out cannot mislead a condition.
    known = {name: value for name, value in values.items() if _PRINTABLE.fullmatch(value)}
    return HttpRequest(method, path, {"http": known})


def _apart(headers: Headers) -> Headers:
    """Splits repeated Authorization headers, which Envoy joins by a comma."""
    return [
        (name, part)
        for name, value in headers
        for part in (value.split(",") if name == "authorization" else (value,))
    ]


def _text(value: bytes) -> str:
    return value.decode("latin-1")


# --- responses ------------------------------------------------------------------------------------


def _response(ruling: Ruling | None, headers: Headers) -> CheckResponse:
    if ruling is None:
        return _allowed({}, headers)
    [decision], [decision_id] = ruling.decisions, ruling.decision_ids
    if decision.effect is Effect.ALLOW and isinstance(ruling.token, VerifiedToken):
        return _allowed(_identity(ruling.token.actor, decision_id), headers)
    if decision.reason.denial_kind is DenialKind.UNAUTHENTICATED:
        unknown = {"error": "unauthenticated", "decision_id": decision_id}
        bearer = (("www-authenticate", "Bearer"),)
        return _denied(code_pb2.UNAUTHENTICATED, decision.reason.name, 401, unknown, bearer)
    body: dict[str, object] = {"error": "forbidden", "decision_id": decision_id}
    code, reason = code_pb2.PERMISSION_DENIED, decision.reason.name
    if decision.step_up is None:
        return _denied(code, reason, 403, body)
    factor, minutes = decision.step_up
    wanted = StepUp(_FACTORS[factor], int(minutes * 60))
    body["clerk_error"] = reverification(wanted)
    challenge = (("www-authenticate", step_up_challenge(wanted)),)
    return _denied(code, reason, 403, body, challenge)


def _identity(actor: Actor, decision_id: str) -> dict[str, str]:
    values = (
        actor.user_id,
        actor.session_id,
        actor.organization_id,
        actor.impersonator_id,
        decision_id,
    )
    # Quoting leaves Clerk's ids unchanged. No other id can end the header or add a value.
    return {
        name: quote(value, safe="")
        for name, value in zip(_IDENTITY, values, strict=True)
        if value is not None
    }


def _allowed(identity: dict[str, str], headers: Headers) -> CheckResponse:
    seen = {name for name, _ in headers if _is_taken_for_ours(name)}
    # Envoy does not remove `connection: upgrade`. A proxy behind Envoy would remove the headers
    # that it names.
    hops = {"connection": "upgrade"} if _names_ours(headers) else {}
    return CheckResponse(
        status=CheckResponse.Status(code=code_pb2.OK),
        ok_response=OkHttpResponse(
            headers=_options((identity | hops).items()),
            # Envoy removes headers after it has set ours.
            headers_to_remove=sorted((_ALWAYS_REMOVED | seen) - identity.keys()),
        ),
    )


def _is_taken_for_ours(name: str) -> bool:
    """In variables, WSGI and CGI servers write `-` and `_` alike; some, all punctuation."""
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
    body: Mapping[str, object],
    headers: Sequence[tuple[str, str]] = (),
) -> CheckResponse:
    # A response without a code is an allow.
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
    """The denial that replaces the status of an error: with `failure_mode_allow`, Envoy lets a
    request pass after a status.

    None: the status is sent, because Envoy's request is wrong, or another process may answer it.
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
