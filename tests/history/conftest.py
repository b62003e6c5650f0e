"""A PostgreSQL server for the worlds of this directory, which they may kill."""

from collections.abc import Iterator

import pytest

from tests.kit.clusters import Cluster, started_cluster


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    with started_cluster() as started:
        yield started
