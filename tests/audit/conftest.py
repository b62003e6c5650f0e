"""Fixtures of the decision log."""

import shutil
from collections.abc import Iterator

import pytest

from tests.kit.audit.straced import Runner


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: what a crash at a system call does is not tested")
    runner = Runner(tmp_path_factory.mktemp("runs"))
    yield runner
    runner.close()
