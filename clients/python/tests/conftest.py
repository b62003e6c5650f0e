"""A guard and its peer."""

from collections.abc import Iterator

import pytest
from pdp_client import Guard

from clients.python.tests.answerer import Answerer, serve


@pytest.fixture
def answerer() -> Iterator[Answerer]:
    one = Answerer()
    server = serve(one, "127.0.0.1:0")
    yield one
    server.stop(None).wait()


@pytest.fixture
def teller() -> Iterator[Answerer]:
    """A peer that also tells what changes."""
    one = Answerer(watches=True)
    server = serve(one, "127.0.0.1:0")
    yield one
    server.stop(None).wait()


@pytest.fixture
def guard(answerer: Answerer) -> Iterator[Guard]:
    # Ten seconds, so that a slow machine does not change what a test is about.
    with Guard(answerer.address, deadline_seconds=10) as one:
        yield one
