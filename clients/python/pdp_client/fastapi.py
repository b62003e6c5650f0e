"""The guard of FastAPI applications.

    protect(app, guard, Routes({"/admin/**": "admin:access", "GET /healthz": PUBLIC}))

    @app.put("/courses/{course_id}")
    def edit(actor: Annotated[Actor, Depends(Requires("course:edit", course))]) -> ...

OpenAPI shows what is guarded: by a bearer token, with the answers 401, 403 and 503.
"""

from typing import Any

import pdp_routes
from fastapi import FastAPI
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from pdp_routes import Routes
from starlette.requests import HTTPConnection

import pdp_client.starlette
from pdp_client.adapting import ResourceOf, question
from pdp_client.aio import AsyncGuard
from pdp_client.guard import Guard
from pdp_client.headers import SESSION_COOKIE
from pdp_client.starlette import AsgiGuard
from pdp_client.values import Actor

_SCHEME = "ClerkSession"
_BEARER = HTTPBearer(
    bearerFormat="JWT", description="The session token of Clerk; browsers may send it as a cookie."
)
_ANSWERS = {
    "401": {"description": "The token does not prove the actor's identity."},
    "403": {"description": "The actor may not do this."},
    "503": {"description": "There is no decision now. Ask again after `Retry-After` seconds."},
}
_METHODS = frozenset(("get", "put", "post", "delete", "options", "head", "patch", "trace"))
"""The methods of a Path Item Object (OpenAPI 3.1)."""


class Requires(SecurityBase):
    """A dependency that returns the allowed actor, and refuses everybody else. Uses the guard that
    was passed to `protect`."""

    model = _BEARER
    scheme_name = _SCHEME

    def __init__(self, permission: str, resource: ResourceOf | None = None) -> None:
        """`resource` receives the Request or the WebSocket."""
        self._permission = permission
        self._resource = resource

    async def __call__(self, connection: HTTPConnection) -> Actor:
        """Returns the actor if they are allowed. Raises GuardError."""
        guard: AsgiGuard = connection.app.state.pdp
        asked = question(self._permission, self._resource, connection)
        return await guard.require(connection.scope, asked)


def protect(
    app: FastAPI,
    guard: Guard | AsyncGuard,
    routes: Routes | None = None,
    *,
    cookie_name: str = SESSION_COOKIE,
) -> None:
    """Calls `pdp_client.starlette.protect`, and marks guarded operations in OpenAPI.

    The map also guards `/docs`, `/redoc` and `/openapi.json`: if it does not name them, they are
    refused.
    """
    pdp_client.starlette.protect(app, guard, routes, cookie_name=cookie_name)
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        for path, item in schema.get("paths", {}).items():
            for method in _METHODS & item.keys():
                _show(schema, item[method], by_map=_is_guarded(routes, method.upper(), path))
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation does it


def _show(schema: dict[str, Any], operation: dict[str, Any], *, by_map: bool) -> None:
    security: list[dict[str, list[str]]] = (
        operation.setdefault("security", []) if by_map else (operation.get("security", []))
    )
    if by_map and {_SCHEME: []} not in security:
        security.append({_SCHEME: []})
        schemes = schema.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes[_SCHEME] = _BEARER.model_dump(mode="json", by_alias=True, exclude_none=True)
    if {_SCHEME: []} in security:
        operation["responses"] = {**_ANSWERS, **operation.get("responses", {})}


def _is_guarded(routes: Routes | None, method: str, path: str) -> bool:
    """Whether a route map guards an operation; `path` has variables, like `/courses/{id}`."""
    if routes is None:
        return False
    try:
        return not isinstance(routes.match(method, path), pdp_routes.Public)
    except pdp_routes.RouteRefused:
        return True
