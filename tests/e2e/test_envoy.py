"""Envoy with the service inside, and the process that holds it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.e2e.conftest import POLICY
from tests.e2e.test_check import ask, reason_of
from tests.kit.server import ServerProcess, running_server
from tests.kit.waiting import eventually


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_where_its_holder_is_killed_envoy_ends_by_itself(tmp_path: Path) -> None:
    with running_server(tmp_path, POLICY, DOOR="envoy") as (server, _):
        assert server.process is not None
        holder, envoy = server.pids()
        os.kill(holder, signal.SIGKILL)
        server.process.wait(10)
        eventually(lambda: ended(envoy), seconds=20)
        assert '"event": "stopped"' in server.log()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_where_envoy_ends_its_holder_says_so_and_fails(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running_server(tmp_path, POLICY, DOOR="envoy") as (server, _):
        assert server.process is not None
        os.kill(server.pids()[1], number)
        assert server.process.wait(20) == 2
        assert "pdp: Envoy ended by itself" in server.log()


def test_health_is_answered_and_turns_with_readiness(tmp_path: Path) -> None:
    with running_server(tmp_path, POLICY, DOOR="envoy") as (_, stubs):
        health = HealthStub(stubs.channel)
        serving = HealthCheckResponse.ServingStatus.SERVING
        eventually(lambda: health.Check(HealthCheckRequest(), timeout=5).status == serving)


def test_what_the_command_line_says_holds_inside(tmp_path: Path) -> None:
    """The service inside reads the settings again: they must be the same."""
    with running_server(tmp_path, POLICY, DOOR="envoy") as (server, stubs):
        environment = Path(f"/proc/{server.pids()[1]}/environ").read_bytes().split(b"\0")
        assert f"PDP_LISTEN=127.0.0.1:{server.port}".encode() in environment
        assert reason_of(ask(stubs, "user_ivan", "course:edit")) == "ALLOWED_BY_RULE"


def test_without_the_extra_the_server_says_what_to_install(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, {"DOOR": "envoy"})
    hidden = tmp_path / "hidden.py"
    hidden.write_text(
        "import importlib.util, runpy, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n == 'pyvoy' else find(n, *a)\n"
        "sys.argv = ['pdp', 'serve']\n"
        "runpy.run_module('pdp', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, str(hidden)],
        cwd=tmp_path,
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'pdp[envoy]'" in done.stderr


def test_a_port_must_be_named(tmp_path: Path) -> None:
    done = ServerProcess(tmp_path, {"DOOR": "envoy", "LISTEN": "127.0.0.1:0"}).pdp("serve")
    assert done.returncode == 2
    assert "port must be named" in done.stderr
