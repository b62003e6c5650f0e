"""The allowance for a busy machine: it counts what was lost, and hides no fault."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit import stall
from tests.kit.stall import STRETCH_MAX, Stopwatch
from tests.kit.waiting import eventually

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this system does not count it"
)


def waited_by(pid: int) -> float:
    return sum(seconds for (process, _), seconds in stall.waited().items() if process == pid)


BUSY = "import os; os.sched_setaffinity(0, {%d}); print(flush=True)\nwhile True: pass"


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Processes that share one processor, and use all of it."""
    processor = min(os.sched_getaffinity(0))
    processes = [
        subprocess.Popen([sys.executable, "-c", BUSY % processor], stdout=subprocess.PIPE)
        for _ in range(number)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_what_a_process_waits_for_the_processor_is_not_counted() -> None:
    with busy_processes(3):
        watch = Stopwatch()
        eventually(lambda: watch.stalled > 0.2)
        assert watch.seconds < watch.elapsed


def test_a_bound_is_stretched_by_what_was_lost_and_no_further() -> None:
    with busy_processes(3):
        began = time.monotonic()
        with pytest.raises(AssertionError, match=r"did not happen within 0\.1 s"):
            eventually(lambda: False, seconds=0.1)
        stretched = time.monotonic() - began
        assert stretched > 0.1
        assert stretched < 0.1 * STRETCH_MAX + 5


@pytest.mark.parametrize("stopped", [True, False])
def test_a_process_that_hangs_uses_up_its_bound(stopped: bool) -> None:
    """Positive control: the allowance is for the machine, not for what is tested."""
    code = "print(flush=True); import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if stopped:
            process.send_signal(signal.SIGSTOP)
        before = waited_by(process.pid)
        with pytest.raises(AssertionError, match="did not happen"):
            eventually(lambda: False, seconds=0.3)
        after = waited_by(process.pid)
        process.kill()
    assert after - before < 0.1
