"""What the adapters of all frameworks share. Knows no framework."""

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
"""Finds in a request what is to be acted upon."""

_SHOWN_MAX = 200
"""Characters of a path in the log."""


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


def routed(routes: Routes, method: str, path: str, sent: Collection[str]) -> Question | None:
    """What a route map asks for a request; None: nothing, it is public.

    Args:
        routes: The map.
        method: As it was sent.
        path: The path by which the framework finds the handler, percent-decoded.
        sent: The whole target as it was sent, with its escapes and with what the framework does not
            look at (a mount, the prefix of a proxy). Empty: the server does not say it.

    Raises:
        RouteRefused: No route names the path, or it could be read otherwise. It is logged.
    """
    try:
        return _routed(routes, method, path, sent)
    except (RouteRefused, pdp_routes.RouteRefused) as error:
        raise refused_route(method, path, error.reason) from None


def refused_route(method: str, path: str, reason: str) -> RouteRefused:
    """The error for a request that a route map does not let pass. It is logged, because the PDP was
    not asked and browsers are told no reason."""
    shown = redact(path[:_SHOWN_MAX])
    log.warning("route refused: %.32a %a: %s", method, shown, reason)
    return RouteRefused(reason)


def _routed(routes: Routes, method: str, path: str, sent: Collection[str]) -> Question | None:
    if method != method.upper():
        # Some frameworks take `post` for `POST`; a route for `POST` does not.
        raise RouteRefused("ambiguous_path")
    asked = routes.match(method, _with_escapes(path, sent))
    if isinstance(asked, Public):
        return None
    if asked.resource_type is None or asked.resource_id is None:
        return Question(asked.permission)
    return Question(asked.permission, Resource(asked.resource_type, asked.resource_id))


def _with_escapes(path: str, sent: Collection[str]) -> str:
    """A decoded path as it was sent: the end of the target that decodes to it."""
    if len(sent) > 1 or "\ufffd" in path:  # that stands for what is not UTF-8
        raise RouteRefused("ambiguous_path")
    if not sent:
        return quote(path, safe="/!$&'()*+,:=@", errors="replace")
    (target,) = sent
    whole = target.partition("?")[0]
    read_path(whole)  # a prefix that could be read otherwise might end elsewhere
    end = "/" + "/".join(whole.rsplit("/", path.count("/"))[1:])
    if unquote(end) != path:
        raise RouteRefused("ambiguous_path")
    return end


def sent_by_asgi(scope: Mapping[str, Any]) -> Collection[str]:
    """What an ASGI server says that was sent."""
    raw = scope.get("raw_path")
    return () if raw is None else (raw.decode("latin-1"),)


def sent_by_wsgi(environ: Mapping[str, Any]) -> Collection[str]:
    """What a WSGI server says that was sent. `RAW_URI` is from gunicorn, `REQUEST_URI` from uWSGI
    and mod_wsgi, and Werkzeug says both."""
    return {environ[name] for name in ("RAW_URI", "REQUEST_URI") if name in environ}


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
