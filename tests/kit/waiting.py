"""Waiting for a condition, with a deadline, instead of sleeping for luck."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.kit.stall import Stopwatch

T = TypeVar("T")

LOOK_SECONDS = 0.1
SLEEP_SECONDS = (0.005, 0.05)
"""Between two looks: at first, and at most. A long wait needs no fine look, which costs time."""


def eventually(condition: Callable[[], object], *, seconds: float = 10.0, what: str = "") -> float:
    """Returns once `condition()` is true, and how long it waited; fails the test after `seconds`.

    Time in which the machine did not run the processes of the test does not count.
    """
    watch = None  # it reads much of /proc
    look_at = LOOK_SECONDS
    shortest, longest = SLEEP_SECONDS
    while not condition():
        watch = watch or Stopwatch()
        if watch.elapsed > look_at:
            look_at = watch.elapsed + LOOK_SECONDS
            if watch.seconds > seconds:
                raise AssertionError(
                    f"did not happen within {seconds} s, nor within another {watch.stalled:.2f} s"
                    f" that the machine was busy with something else: {what or condition}"
                )
        time.sleep(min(max(shortest, watch.elapsed / 20), longest))
    return watch.seconds if watch else 0.0


_threads = threading.local()


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, on an event loop of the calling thread."""
    if not hasattr(_threads, "runner"):
        _threads.runner = asyncio.Runner()
    # Not `Runner.run`, which sets up SIGINT for each coroutine.
    result: T = _threads.runner.get_loop().run_until_complete(work)
    return result
