"""Empty tables on SQLite and in a PostgreSQL database of their own."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import Connection, create_engine, make_url

from tests.kit.databases import new_database
from tests.kit.filters.tables import Base


@pytest.fixture(scope="package")
def connections(postgresql_server: str) -> Iterator[list[Connection]]:
    with ExitStack() as stack:
        url = make_url(stack.enter_context(new_database(postgresql_server)))
        opened = []
        for engine in (
            create_engine("sqlite://"),
            create_engine(url.set(drivername="postgresql+psycopg")),
        ):
            stack.callback(engine.dispose)
            opened.append(stack.enter_context(engine.connect()))
            Base.metadata.create_all(opened[-1])
        yield opened
