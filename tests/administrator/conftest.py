"""Fixtures: an administrator on a fresh database, once on each engine."""

import pytest
from sqlalchemy import Engine

from pdp.administrator import Administrator
from pdp.facts import Store


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)


@pytest.fixture
def written() -> list[int]:
    """The revisions that the administrator reported as written."""
    return []


@pytest.fixture
def administrator(store: Store, written: list[int]) -> Administrator:
    return Administrator(store, written.append)
