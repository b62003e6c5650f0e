"""Shared by the adapters of all frameworks. Knows no framework."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import quote, unquote

import pdp_routes
from pdp_routes import Public, Routes
from pdp_routes.paths import read_path

from pdp_client.errors import GuardError, PdpRefused, PdpUnavailable, RouteRefused, redact
from pdp_client.headers import session_token
from pdp_client.refusals import Refusal, refusal_of
from pdp_client.values import Question, Resource

log = logging.getLogger("pdp_client")

ResourceOf = Callable[[Any], Resource]
"""Finds the resource of a request."""

_SHOWN_MAX = 200
"""The most characters of a path in the log."""


def answer(error: GuardError) -> Refusal:
    """Logs the error if it is a failure, and returns the answer to a browser."""
    log_failure(error)
    return refusal_of(error)


def log_failure(error: GuardError) -> None:
    """Logs a failure. No other log has it: the audit log has denials, and browsers get no
    reason."""
    if isinstance(error, PdpUnavailable | PdpRefused):
        log.error("no decision: %s", error)


def question(permission: str, resource: ResourceOf | None, request: object) -> Question:
    """The question about a request."""
    if resource is None:
        return Question(permission)
    found = resource(request)
    if not isinstance(found, Resource):
        # Without its resource it would be a different question, which might be allowed.
        raise TypeError(f"the resource of a request is a Resource, not {type(found).__name__}")
    return Question(permission, found)


def routed(routes: Routes, method: str, path: str, sent: Collection[str]) -> Question | None:
    """The question that a route map asks for a request; None: the route is public.

    Args:
        routes: The map.
        method: The method as it was sent.
        path: The path by which the framework finds the handler, percent-decoded.
        sent: The whole target as it was sent, with its escapes and the parts that the framework
            ignores (a mount, the prefix of a proxy). Empty: the server does not report it.

    Raises:
        RouteRefused: No route matches the path, or the path is ambiguous. It is logged.
    """
    try:
        return _routed(routes, method, path, sent)
    except (RouteRefused, pdp_routes.RouteRefused) as error:
        raise refused_route(method, path, error.reason) from None


def refused_route(method: str, path: str, reason: str) -> RouteRefused:
    """The error for a request that a route map refuses. Logged here, because the PDP was not asked
    and browsers get no reason."""
    shown = redact(path[:_SHOWN_MAX])
    log.warning("route refused: %.32a %a: %s", method, shown, reason)
    return RouteRefused(reason)


def _routed(routes: Routes, method: str, path: str, sent: Collection[str]) -> Question | None:
    if method != method.upper():
        # Some frameworks accept `post` for `POST`; a route for `POST` does not.
        raise RouteRefused("ambiguous_path")
    asked = routes.match(method, _with_escapes(path, sent))
    if isinstance(asked, Public):
        return None
    if asked.resource_type is None or asked.resource_id is None:
        return Question(asked.permission)
    return Question(asked.permission, Resource(asked.resource_type, asked.resource_id))


def _with_escapes(path: str, sent: Collection[str]) -> str:
    """The path as it was sent: the end of the target that decodes to `path`."""
    if len(sent) > 1 or "\ufffd" in path:  # U+FFFD replaces bytes outside of UTF-8
        raise RouteRefused("ambiguous_path")
    if not sent:
        return quote(path, safe="/!$&'()*+,:=@", errors="replace")
    (target,) = sent
    whole = target.partition("?")[0]
    read_path(whole)  # an ambiguous prefix might end elsewhere
    end = "/" + "/".join(whole.rsplit("/", path.count("/"))[1:])
    if unquote(end) != path:
        raise RouteRefused("ambiguous_path")
    return end


def sent_by_asgi(scope: Mapping[str, Any]) -> Collection[str]:
    """The target as it was sent, if the ASGI server reports it."""
    raw = scope.get("raw_path")
    return () if raw is None else (raw.decode("latin-1"),)


def sent_by_wsgi(environ: Mapping[str, Any]) -> Collection[str]:
    """The target as it was sent, if the WSGI server reports it: gunicorn in `RAW_URI`, uWSGI and
    mod_wsgi in `REQUEST_URI`, Werkzeug in both."""
    return {environ[name] for name in ("RAW_URI", "REQUEST_URI") if name in environ}


def asgi_token(scope: Mapping[str, Any], cookie_name: str) -> str:
    """The session token of a request."""
    pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    return session_token(pairs, cookie_name)


def wsgi_token(environ: Mapping[str, Any], cookie_name: str) -> str:
    """The session token of a request. Servers join repeated headers by a comma, which no session
    token contains, so a value with a comma counts as two."""
    pairs = []
    if "HTTP_AUTHORIZATION" in environ:
        values = environ["HTTP_AUTHORIZATION"].split(",")
        pairs += [("authorization", value) for value in values]
    if "HTTP_COOKIE" in environ:
        pairs.append(("cookie", environ["HTTP_COOKIE"]))
    return session_token(pairs, cookie_name)
