"""What the command line does on a terminal, and only there: colour, progress, questions."""

import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pdpapi.v1 import administration_service_pb2 as pb
from pdpapi.v1.core_pb2 import Resource

from tests.cli.hostile import CONTROLS, MARKUP
from tests.cli.terminal import on_terminal
from tests.kit import prefork
from tests.kit.server import ServerProcess, Stubs

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connections.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        for connection in connections:
            connection.close()


def test_errors_are_coloured_on_a_terminal_and_not_if_no_color_is_set(
    server: ServerProcess,
) -> None:
    environment = {**server.environment, "TERM": "xterm-256color"}
    status, shown = on_terminal("get", "user", "nobody", environment=environment)
    assert status == 2
    assert COLOUR.search(shown), shown
    plain = {**environment, "NO_COLOR": "1"}
    status, shown = on_terminal("get", "user", "nobody", environment=plain)
    assert status == 2
    assert "pdp: NOT_FOUND: there is no user 'nobody'" in shown
    assert not COLOUR.search(shown)
    assert "\x1b" not in server.pdp("get", "user", "nobody").stderr


def test_hostile_names_act_on_no_terminal(school: tuple[ServerProcess, Stubs]) -> None:
    server, stubs = school
    names = [*MARKUP, *CONTROLS]
    for index, text in enumerate(names):
        # A name holds no control characters; attributes hold any text.
        user = pb.User(id=f"user_x{index}", name=text if text in MARKUP else "a\u202eb")
        user.attributes.update({"note": text})
        stubs.administration.CreateUser(pb.CreateUserRequest(user=user), timeout=10)
    try:
        for command in (
            ("get", "users", "-o", "wide"),
            ("get", "users", "-o", "json"),
            ("get", "users", "-o", "yaml"),
            ("describe", "users", *(f"user_x{index}" for index in range(len(names)))),
        ):
            done = server.pdp(*command)
            assert done.returncode == 0
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stdout), command
            status, shown = on_terminal(
                *command, environment={**server.environment, "NO_COLOR": "1", "TERM": "xterm"}
            )
            assert status == 0
            for text in CONTROLS:
                assert text not in shown
            assert "\x1b]" not in shown, "no title, no link"
            assert "\x1b[2J" not in shown
    finally:
        for index in range(len(names)):
            stubs.administration.DeleteUser(pb.DeleteUserRequest(id=f"user_x{index}"), timeout=10)


def test_what_takes_over_a_second_is_shown_on_a_terminal_and_nowhere_else(
    server: ServerProcess, silent_server: str
) -> None:
    environment = {**server.environment, "PDP_SERVER": silent_server, "TERM": "xterm"}
    status, shown = on_terminal("get", "users", environment=environment)
    assert status == 2
    assert "reading users" in shown
    assert "accepts connections and says nothing" in shown
    status, shown = on_terminal("whoami", environment=environment)
    assert f"asking {silent_server}" in shown
    piped = prefork.run(("get", "users"), cwd=server.directory, env=environment, timeout=60)
    assert piped.returncode == 2
    assert "reading users" not in piped.stderr + piped.stdout


@pytest.mark.parametrize(("answer", "status"), [("n\n", 1), ("\n", 1), ("y\n", 0)])
def test_delete_asks_on_a_terminal(
    school: tuple[ServerProcess, Stubs], answer: str, status: int
) -> None:
    server, stubs = school
    lesson = Resource(type="course", id="asked", organization_id="org_school")
    stubs.administration.CreateResource(pb.CreateResourceRequest(resource=lesson), timeout=10)
    found, shown = on_terminal(
        "delete", "resource", "course:asked", answer=answer, environment=server.environment
    )
    assert "resource course:asked\n" in shown
    assert "delete 1 resource? [y/N]" in shown
    assert found == status
    left = server.pdp("get", "resource", "course:asked").returncode
    assert left == (0 if status else 2)
    if status:
        assert server.pdp("delete", "-y", "resource", "course:asked").returncode == 0


def test_an_api_key_that_is_typed_is_not_shown(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    status, shown = on_terminal(
        "context", "set", "prod", "--with-key", answer="pdp_typed\n", environment=environment
    )
    assert status == 0
    assert "pdp_typed" not in shown
    assert "pdp_typed" in (tmp_path / "pdp" / "profiles.json").read_text()
