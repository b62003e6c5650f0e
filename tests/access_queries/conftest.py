"""A query service on either engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.kit.access_queries.service import QueryService, query_service


@pytest.fixture
def service(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[QueryService]:
    # How long a record may wait for a busy disk is not what these tests are about.
    monkeypatch.setattr("pdp.audit.recorder.WAIT_SECONDS_MAX", 30)
    with query_service(engine, tmp_path / "audit") as running:
        yield running
