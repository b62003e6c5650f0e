"""Waiting for a condition, with a deadline, instead of sleeping for luck."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.kit.stall import Stopwatch

T = TypeVar("T")

LOOK_SECONDS = (0.1, 0.5)
"""Between two looks at what the machine kept waiting, which read much of /proc: at first, and at
most. Most waits end before the first."""
SLEEP_SECONDS = (0.005, 0.05)
"""Between two looks at the condition: at first, and at most. A long wait needs no fine look."""


def eventually(condition: Callable[[], object], *, seconds: float = 10.0, what: str = "") -> float:
    """Returns once `condition()` is true, and how long it waited; fails the test after `seconds`.

    Time in which the machine did not run the processes of the test does not count.
    """
    began = time.monotonic()
    watched_from, watch = 0.0, None
    look_at, look_seconds_max = LOOK_SECONDS
    shortest, longest = SLEEP_SECONDS
    while not condition():
        elapsed = time.monotonic() - began
        if elapsed > look_at:
            if watch is None:
                watched_from, watch = elapsed, Stopwatch()
            elif watch.seconds > seconds:
                raise AssertionError(
                    f"did not happen within {seconds} s, nor within another {watch.stalled:.2f} s"
                    f" that the machine was busy with something else: {what or condition}"
                )
            look_at = elapsed + min(max(elapsed / 5, LOOK_SECONDS[0]), look_seconds_max)
        time.sleep(min(max(shortest, elapsed / 20), longest))
    return time.monotonic() - began if watch is None else watched_from + watch.seconds


_threads = threading.local()


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, on an event loop of the calling thread."""
    if not hasattr(_threads, "runner"):
        _threads.runner = asyncio.Runner()
    # Not `Runner.run`, which sets up SIGINT for each coroutine.
    result: T = _threads.runner.get_loop().run_until_complete(work)
    return result
