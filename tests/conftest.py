"""Fixtures that every test may ask for."""

import gc
import os

# The tests hold gRPC channels and start programs under other users, which Python does by fork: what
# gRPC would do in the child then, before it becomes the program, has crashed it. Read at import.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# The tests start hundreds of processes: without bytecode on disk each compiles all modules that it
# imports, which takes three times as long as the rest of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from hypothesis import is_hypothesis_test, settings

import pdp.audit.recorder
from tests.kit import soak
from tests.kit.databases import *  # noqa: F403
from tests.kit.prefork import RECORD_SECONDS_MAX

pdp.audit.recorder.WAIT_SECONDS_MAX = RECORD_SECONDS_MAX

# How long an example takes says more about what else the machine does.
settings.register_profile("unhurried", deadline=None, max_examples=soak.count(100, sample=30))
settings.load_profile("unhurried")
# What is collected stays until the end: nothing of it is garbage, and to search it takes a second.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every property is tried with more examples in `make soak`."""
    for item in items:
        if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj):
            item.add_marker("soak")


def pytest_collection_finish() -> None:
    """Tests have their garbage collected, but for what was there before them."""
    gc.freeze()
    gc.enable()
