"""The guard of Flask applications.

    protect(app, guard, Routes({"/admin/**": "admin:access", "GET /healthz": PUBLIC}))

    @app.put("/courses/<course_id>")
    @requires("course:edit", lambda request: Resource("course", request.view_args["course_id"]))
    def edit(course_id): ...

The actor is `flask.g.actor`. A `GuardError` that a view raises becomes an answer too.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from flask import Flask, Response, current_app, g, request
from pdp_routes import Routes

from pdp_client.adapting import (
    ResourceOf,
    answer,
    question,
    routed,
    sent_by_wsgi,
    wsgi_token,
)
from pdp_client.aio import AsyncGuard
from pdp_client.errors import GuardError
from pdp_client.guard import Guard
from pdp_client.headers import SESSION_COOKIE
from pdp_client.values import Question

View = TypeVar("View", bound=Callable[..., Any])

_EXTENSION = "pdp"
_INSIDE = "_pdp_requires"


@dataclass(frozen=True, slots=True)
class _Protection:
    guard: Guard
    routes: Routes | None
    cookie_name: str


def protect(
    app: Flask,
    guard: Guard | AsyncGuard,
    routes: Routes | None = None,
    *,
    cookie_name: str = SESSION_COOKIE,
) -> None:
    """Enables `requires` in an application, and turns each `GuardError` into an answer. With
    `routes`, the map decides which requests pass, before any other code sees them.

    The map matches `PATH_INFO`, by which Flask finds views: without the prefix that a server, a
    mount or a proxy adds. A preflight passes as far as Flask's `after_request`, which lets
    flask-cors answer it: no view sees it. Views for `OPTIONS` are guarded like any other.
    """
    app.extensions[_EXTENSION] = _Protection(Guard.of(guard), routes, cookie_name)
    app.register_error_handler(GuardError, _answer)
    app.before_request_funcs.setdefault(None, []).insert(0, _before_request)


def requires(permission: str, resource: ResourceOf | None = None) -> Callable[[View], View]:
    """A view for allowed actors only. `resource` receives the request. Goes below `@app.route`."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(*arguments: Any, **named: Any) -> Any:
            asked = question(permission, resource, request)
            try:
                _require(asked)
            except GuardError as error:
                # Returned, not raised: a blueprint's handler of all exceptions would take
                # precedence.
                return _answer(error)
            return current_app.ensure_sync(view)(*arguments, **named)

        setattr(view, _INSIDE, True)
        return cast(View, guarded)

    return decorate


def _before_request() -> Response | None:
    protection: _Protection = current_app.extensions[_EXTENSION]
    view = current_app.view_functions.get(request.endpoint or "")
    if getattr(view, _INSIDE, False):
        raise RuntimeError(f"{request.endpoint}: @requires has no effect above @app.route")
    if protection.routes is None:
        return None
    g.actor = None
    if _is_preflight() and not _has_view_for_options():
        return current_app.response_class()
    try:
        asked = routed(
            protection.routes,
            request.environ["REQUEST_METHOD"],
            _path(request.environ),
            sent_by_wsgi(request.environ),
        )
        if asked is not None:
            _require(asked)
    except GuardError as error:
        return _answer(error)
    return None


def _require(asked: Question) -> None:
    protection: _Protection = current_app.extensions[_EXTENSION]
    token = wsgi_token(request.environ, protection.cookie_name)
    g.actor = protection.guard.require(token, asked.permission, asked.resource)


def _is_preflight() -> bool:
    """Whether the request is a preflight (Fetch, section "CORS-preflight request"). Anybody can
    send one."""
    return (
        request.environ["REQUEST_METHOD"] == "OPTIONS"
        and "Origin" in request.headers
        and "Access-Control-Request-Method" in request.headers
    )


def _has_view_for_options() -> bool:
    """Whether a view answers this `OPTIONS` request, not Flask itself."""
    rule = request.url_rule
    return rule is not None and not getattr(rule, "provide_automatic_options", False)


def _path(environ: Mapping[str, Any]) -> str:
    """The path by which Flask finds views. By PEP 3333, its bytes are encoded as Latin-1. Bytes
    outside of UTF-8 become U+FFFD, as in Flask."""
    native: str = environ.get("PATH_INFO", "")
    return native.encode("latin-1", "replace").decode(errors="replace")


def _answer(error: GuardError) -> Response:
    refusal = answer(error)
    return Response(refusal.body, refusal.status, dict(refusal.headers))
