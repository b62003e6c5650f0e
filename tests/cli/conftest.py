"""Fixtures of the command line."""

import os

import pytest

from tests.cli.running import Run, runner


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("audit", "list")`: within this process, without settings of the environment."""
    for name in [name for name in os.environ if name.startswith("PDP_")]:
        monkeypatch.delenv(name)
    return runner(capsys, monkeypatch)
