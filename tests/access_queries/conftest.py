"""A query service on either engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.kit.access_queries.service import QueryService, query_service


@pytest.fixture
def service(engine: Engine, tmp_path: Path) -> Iterator[QueryService]:
    with query_service(engine, tmp_path / "audit") as running:
        yield running
