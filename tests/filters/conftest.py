"""Empty tables on SQLite and on a PostgreSQL server of their own."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import Connection, create_engine, make_url

from tests.kit.clusters import started_cluster
from tests.kit.filters.tables import Base


@pytest.fixture(scope="package")
def connections() -> Iterator[list[Connection]]:
    with ExitStack() as stack:
        cluster = stack.enter_context(started_cluster())
        url = make_url(cluster.database()).set(drivername="postgresql+psycopg")
        opened = []
        for engine in (create_engine("sqlite://"), create_engine(url)):
            stack.callback(engine.dispose)
            opened.append(stack.enter_context(engine.connect()))
            Base.metadata.create_all(opened[-1])
        yield opened
