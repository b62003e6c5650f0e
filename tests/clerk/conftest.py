"""Fixtures: Clerk's Backend API with small pages, and databases to compare with it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from pdp.clerk import api
from pdp.clerk.sync import phases
from pdp.database.engine import open_engine
from tests.kit.clerk.api_server import ClerkApiServer
from tests.kit.clerk.worlds import PAGE_ITEMS, World


@pytest.fixture(scope="module")
def server() -> Iterator[ClerkApiServer]:
    with ClerkApiServer() as running:
        yield running


@pytest.fixture
def clerk(server: ClerkApiServer, monkeypatch: pytest.MonkeyPatch) -> ClerkApiServer:
    """Its pages are small."""
    monkeypatch.setattr(api, "PAGE_ITEMS", PAGE_ITEMS)
    monkeypatch.setattr(api, "OVERLAP_ITEMS", 5)
    monkeypatch.setattr(phases, "CONFIRM_ITEMS", 10)
    server.reset()
    return server


@pytest.fixture
def world(engine: Engine, clerk: ClerkApiServer) -> World:
    return World(engine, clerk)


@pytest.fixture
def small_world(sqlite_url: str, clerk: ClerkApiServer) -> Iterator[World]:
    """On SQLite only, for tests that do not depend on the database."""
    engine = open_engine(sqlite_url)
    yield World(engine, clerk)
    engine.dispose()
