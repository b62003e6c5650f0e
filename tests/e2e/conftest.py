"""One server for the tests that only ask."""

from collections.abc import Iterator

import pytest

from tests.kit.school import POLICY
from tests.kit.server import ServerProcess, Stubs, running_server


@pytest.fixture(scope="session")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Stubs]]:
    with running_server(tmp_path_factory.mktemp("school"), POLICY) as server:
        yield server


@pytest.fixture(scope="session")
def stubs(school: tuple[ServerProcess, Stubs]) -> Stubs:
    return school[1]


@pytest.fixture(scope="session")
def server(school: tuple[ServerProcess, Stubs]) -> ServerProcess:
    return school[0]
