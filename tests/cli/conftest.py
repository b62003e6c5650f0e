"""Fixtures of the command line."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Run, runner
from tests.kit.school import POLICY
from tests.kit.server import ServerProcess, Stubs, running_server


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`run("audit", "list")`: within this process, without settings of the environment, and with
    client profiles of its own."""
    for name in [name for name in os.environ if name.startswith("PDP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return runner(capsys, monkeypatch)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Stubs]]:
    with running_server(tmp_path_factory.mktemp("school"), POLICY) as (server, stubs):
        yield server, stubs


@pytest.fixture(scope="module")
def server(school: tuple[ServerProcess, Stubs]) -> ServerProcess:
    return school[0]


@pytest.fixture
def at(school: tuple[ServerProcess, Stubs], run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run` with the school's server."""
    monkeypatch.setenv("PDP_SERVER", school[0].environment["PDP_SERVER"])
    return run
