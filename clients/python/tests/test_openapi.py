"""OpenAPI of a FastAPI application shows what is guarded."""

import json
from typing import Annotated, Any

import pdp_client.fastapi
import pytest
from fastapi import Depends, FastAPI
from fastapi.exceptions import FastAPIDeprecationWarning
from fastapi.openapi.models import OpenAPI
from pdp_client import Actor, Guard
from pdp_client.fastapi import Requires
from pdp_routes import PUBLIC, Routes
from starlette.applications import Starlette
from starlette.routing import Mount

from clients.python.tests.kit.answerer import Answerer
from clients.python.tests.kit.in_process import on_asgi

BEARER = [{"ClerkSession": []}]
ROUTES = Routes(
    {"/courses/{id}": "course:view", "GET /healthz": PUBLIC, "/openapi.json": "docs:read"}
)


def application(guard: Guard, routes: Routes | None) -> FastAPI:
    app = FastAPI()
    editor = Depends(Requires("course:edit"))

    @app.put("/courses/{course_id}", responses={403: {"description": "Ours."}})
    def edit(course_id: str, actor: Annotated[Actor, editor]) -> str:
        return course_id

    @app.get("/courses/{course_id}")
    def view(course_id: str) -> str:
        return course_id

    pdp_client.fastapi.protect(app, guard, routes)

    @app.get("/healthz")
    def healthz() -> str:
        return "ok"

    return app


def guarded(schema: dict[str, Any]) -> set[str]:
    return {
        f"{method} {path}"
        for path, item in schema["paths"].items()
        for method, operation in item.items()
        if operation.get("security") == BEARER
        and {"401", "403", "503"} <= set(operation["responses"])
    }


def test_what_a_map_or_a_dependency_guards_has_the_scheme_and_the_answers(guard: Guard):
    schema = application(guard, ROUTES).openapi()
    assert guarded(schema) == {"put /courses/{course_id}", "get /courses/{course_id}"}
    assert schema["components"]["securitySchemes"]["ClerkSession"]["scheme"] == "bearer"
    assert schema["paths"]["/courses/{course_id}"]["put"]["responses"]["403"] == {
        "description": "Ours."
    }
    assert "security" not in schema["paths"]["/healthz"]["get"]
    assert OpenAPI.model_validate(schema)


def test_without_a_map_only_what_requires_something_has_them(guard: Guard):
    app = application(guard, None)
    assert guarded(app.openapi()) == {"put /courses/{course_id}"}
    assert app.openapi() == json.loads(json.dumps(app.openapi()))


@pytest.mark.parametrize(("path", "status"), [("/openapi.json", 200), ("/docs", 403)])
def test_documentation_is_guarded_by_the_map_like_everything_else(
    path: str, status: int, guard: Guard, answerer: Answerer
):
    assert on_asgi(application(guard, ROUTES))("GET", path, {})[0] == status
    assert len(answerer.requests) == (status == 200)


@pytest.mark.parametrize("nested", [False, True])
def test_a_mounted_application_with_a_root_path_of_its_own_does_not_start(
    nested: bool, guard: Guard
):
    """It would find other handlers by the path than the one that was judged."""
    with pytest.warns(FastAPIDeprecationWarning):
        inner: Any = FastAPI(root_path="/v1")
    if nested:
        inner = Starlette(routes=[Mount("/deep", inner)])
    app = application(guard, ROUTES)
    app.mount("/sub", inner)
    with pytest.raises(ValueError, match="'/v1'"):
        on_asgi(app)("GET", "/healthz", {})
