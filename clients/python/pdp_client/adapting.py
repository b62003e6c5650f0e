"""What the adapters of all frameworks share. Knows no framework."""

import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote

import pdp_routes
from pdp_routes import Public, Routes

from pdp_client.errors import GuardError, PdpRefused, PdpUnavailable, RouteRefused
from pdp_client.headers import session_token
from pdp_client.refusals import Refusal, refusal_of
from pdp_client.values import Question, Resource

log = logging.getLogger("pdp_client")

ResourceOf = Callable[[Any], Resource]
"""Finds in a request what is to be acted upon."""


def answer(error: GuardError) -> Refusal:
    """What a browser is answered."""
    log_failure(error)
    return refusal_of(error)


def log_failure(error: GuardError) -> None:
    """Nothing else tells of these: denials are in the audit log, and browsers are told nothing."""
    if isinstance(error, PdpUnavailable | PdpRefused):
        log.error("no decision: %s", error)


def question(permission: str, resource: ResourceOf | None, request: object) -> Question:
    """What is to be asked about a request."""
    if resource is None:
        return Question(permission)
    found = resource(request)
    if not isinstance(found, Resource):
        # Without its resource the question would be another one, and might be allowed.
        raise TypeError(f"the resource of a request is a Resource, not {type(found).__name__}")
    return Question(permission, found)


def routed(routes: Routes, method: str, path: str) -> Question | None:
    """What a route map says is to be asked; None: nothing, it is public. `path` as it was sent.

    Raises RouteRefused.
    """
    if method != method.upper():
        # Some frameworks take `post` for `POST`; a route for `POST` does not.
        raise RouteRefused("ambiguous_path")
    try:
        asked = routes.match(method, path)
    except pdp_routes.RouteRefused as error:
        raise RouteRefused(error.reason) from None
    if isinstance(asked, Public):
        return None
    if asked.resource_type is None or asked.resource_id is None:
        return Question(asked.permission)
    return Question(asked.permission, Resource(asked.resource_type, asked.resource_id))


def sent_path(path: str, sent: str | None) -> str:
    """The path as it was sent, where the application reads `path`, which is decoded. `sent`: what
    the server says that it was; None: it does not say. Then the path that the application reads is
    all there is to go by, and the same for both.

    Raises RouteRefused where the two do not go together.
    """
    if sent is None:
        return quote(path, safe="/!$&'()*+,:=@")
    sent = sent.partition("?")[0]
    try:
        decoded = unquote(sent, errors="strict")
    except UnicodeDecodeError:
        decoded = None
    if decoded != path:
        raise RouteRefused("ambiguous_path")
    return sent


def sent_by_asgi(scope: Mapping[str, Any]) -> str | None:
    """What an ASGI server says that was sent."""
    raw = scope.get("raw_path")
    return None if raw is None else raw.decode("latin-1")


def sent_by_wsgi(environ: Mapping[str, Any]) -> str | None:
    """What a WSGI server says that was sent. `RAW_URI` is from gunicorn, `REQUEST_URI` from uWSGI
    and mod_wsgi, and Werkzeug says both."""
    said = {environ[name] for name in ("RAW_URI", "REQUEST_URI") if name in environ}
    if len(said) > 1:
        raise RouteRefused("ambiguous_path")
    return said.pop() if said else None


def asgi_token(scope: Mapping[str, Any], cookie_name: str) -> str:
    """The session token of a request."""
    pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    return session_token(pairs, cookie_name)


def wsgi_token(environ: Mapping[str, Any], cookie_name: str) -> str:
    """The session token of a request. Servers join headers that came twice by a comma, which no
    session token has, so what has one is taken for two."""
    pairs = []
    if "HTTP_AUTHORIZATION" in environ:
        pairs += [("authorization", one) for one in environ["HTTP_AUTHORIZATION"].split(",")]
    if "HTTP_COOKIE" in environ:
        pairs.append(("cookie", environ["HTTP_COOKIE"]))
    return session_token(pairs, cookie_name)
