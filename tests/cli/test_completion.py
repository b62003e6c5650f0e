"""Completion of ids from a server: names of strangers, inserted into a command line."""

from collections.abc import Iterator

import pytest
from pdpapi.v1 import administration_service_pb2 as pb

from tests.kit import prefork
from tests.kit.school import POLICY
from tests.kit.server import ServerProcess, running_server

SHELL = [
    "user_$(touch x)",
    "user_`id`",
    "user_a b",
    "user_*",
    "user_;id",
    "user_'",
    'user_"',
    "user_\\",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("school"), POLICY) as (server, stubs):
        for text in (*SHELL, "user_\u202ex"):
            request = pb.CreateUserRequest(user=pb.User(id=text))
            stubs.administration.CreateUser(request, timeout=10)
        yield server


def completed(server: ServerProcess, line: str, **environment: str) -> list[str]:
    words = line.split(" ")
    environment = {
        **server.environment,
        "_PDP_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        **environment,
    }
    done = prefork.run((), cwd=server.directory, env=environment, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


def test_kinds_and_ids_of_the_server_are_completed(server: ServerProcess) -> None:
    assert completed(server, "pdp get us") == ["users"]
    assert completed(server, "pdp describe role ") == ["ADMIN", "INSTRUCTOR", "STUDENT"]
    assert completed(server, "pdp delete users user_s") == ["user_sam"]
    assert completed(server, "pdp grant ADM") == ["ADMIN"]
    assert completed(server, "pdp grant ADMIN --organization org") == ["org_school"]
    assert completed(server, "pdp user disable user_i") == ["user_ivan"]


def test_names_that_a_shell_reads_are_not_offered(server: ServerProcess) -> None:
    assert completed(server, "pdp get users user_") == ["user_ada", "user_ivan", "user_sam"]


def test_without_a_server_nothing_is_completed_and_nothing_is_said(server: ServerProcess) -> None:
    assert completed(server, "pdp get users user_", PDP_SERVER="127.0.0.1:1") == []
    assert completed(server, "pdp get nonsense user_") == []
    assert completed(server, "pdp get us", PDP_LISTNE="misspelled") == ["users"]
    assert completed(server, "pdp --context nobody get users user_") == []
