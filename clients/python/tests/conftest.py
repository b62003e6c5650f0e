"""A guard and its peer."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pdp_client import Guard

from clients.python.tests.kit.answerer import Answerer, serve


@pytest.fixture
def answerer() -> Iterator[Answerer]:
    one = Answerer()
    server = serve(one, "127.0.0.1:0")
    yield one
    server.stop(None).wait()


@pytest.fixture
def teller() -> Iterator[Answerer]:
    """A peer that also has a change stream."""
    one = Answerer(watches=True)
    server = serve(one, "127.0.0.1:0")
    yield one
    server.stop(None).wait()


@pytest.fixture
def guard(answerer: Answerer) -> Iterator[Guard]:
    # Ten seconds, so that a slow machine does not change what a test is about.
    with Guard(answerer.address, deadline_seconds=10) as one:
        yield one


@pytest.fixture(scope="session")
def harness() -> Iterator[dict[str, Any]]:
    """A real PDP and a scripted one: clients/conformance/README.md."""
    command = (sys.executable, "-m", "tests.conformance")
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdin=-1, stdout=-1, cwd=root, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
