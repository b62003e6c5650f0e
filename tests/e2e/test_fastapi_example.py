"""The example for FastAPI and SQLAlchemy: its lists are what single decisions say."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import make_url

from tests.kit.clusters import administer
from tests.kit.ports import free_port, listens
from tests.kit.server import running_server, token_of
from tests.kit.waiting import eventually

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi-courses"

Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URL of the application's own, empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('courses')}/courses.db"
        return
    server, name = request.getfixturevalue("postgresql_server"), f"courses_{uuid.uuid4().hex}"
    administer(server, f'CREATE DATABASE "{name}"')
    url = make_url(server).set(database=name, drivername="postgresql+psycopg")
    yield url.render_as_string(hide_password=False)
    administer(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def ask(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    directory = tmp_path_factory.mktemp("example")
    policy = (EXAMPLE / "pdp.yaml").read_text()
    with running_server(directory, policy) as (server, _):
        port = free_port()
        environment = {
            **os.environ,
            "DATABASE_URL": database,
            "PDP_SERVER": f"127.0.0.1:{server.port}",
            "PDP_DEADLINE_SECONDS": "20",
        }
        command = [sys.executable, "-m", "uvicorn", "main:app", "--port", str(port)]
        with (
            subprocess.Popen(command, cwd=EXAMPLE, env=environment) as application,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
        ):

            def ask(method: str, path: str, user: str | None = None, **more: Any) -> httpx.Response:
                headers = {}
                if user is not None:
                    token = token_of(user, organization_id="org_school")
                    headers["authorization"] = f"Bearer {token}"
                return client.request(method, path, headers=headers, **more)

            try:
                eventually(lambda: listens(application.pid, port), seconds=20)
                yield ask
            finally:
                application.terminate()


def titles(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [course["title"] for course in answer.json()]


def test_a_list_has_all_that_may_be_seen_and_nothing_else(ask: Ask) -> None:
    drafts = ["Latin, a draft"]
    published = ["Algebra", "Biology", "Alchemy"]
    assert titles(ask("GET", "/courses", "user_sam")) == published
    assert sorted(titles(ask("GET", "/courses", "user_ivan"))) == sorted(published + drafts)


def test_a_list_by_another_permission_is_what_single_decisions_say(ask: Ask) -> None:
    seen = ask("GET", "/courses", "user_ivan").json()
    editable = titles(ask("GET", "/courses?permission=course:edit", "user_ivan"))
    assert editable == ["Algebra", "Latin, a draft"]
    assert editable == [course["title"] for course in seen if course["may_edit"]]
    assert titles(ask("GET", "/courses?permission=course:edit", "user_sam")) == []


def test_a_change_is_guarded_and_what_may_not_be_seen_does_not_exist(ask: Ask) -> None:
    changed = ask("PUT", "/courses/1", "user_ivan", json={"title": "Algebra"})
    assert changed.status_code == 200
    assert ask("PUT", "/courses/1", "user_sam", json={"title": "Mine"}).status_code == 403
    assert ask("PUT", "/courses/5", "user_ivan", json={"title": "Mine"}).status_code == 403
    assert ask("PUT", "/courses/6", "user_ivan", json={"title": "Mine"}).status_code == 404
    assert ask("PUT", "/courses/4", "user_sam", json={"title": "Mine"}).status_code == 404
    assert "Mine" not in ask("GET", "/courses", "user_ivan").text


def test_without_a_token_nothing_is_listed(ask: Ask) -> None:
    assert ask("GET", "/courses").status_code == 401
