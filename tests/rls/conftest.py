"""A database of both, on a PostgreSQL server of its own: roles belong to a whole server."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine

from tests.kit.clusters import Cluster, started_cluster
from tests.kit.rls.database import open_database
from tests.kit.rls.oracle import prepare


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    with started_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="package")
def engine(cluster: Cluster) -> Iterator[Engine]:
    engine = open_database(cluster.database())
    with engine.connect() as connection:
        prepare(connection)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection
