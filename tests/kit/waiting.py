"""Waiting for a condition, with a deadline, instead of sleeping for luck."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], object], *, seconds: float = 10.0, what: str = "") -> None:
    """Returns once `condition()` is true; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {seconds} s: {what or condition}")
        time.sleep(0.005)


_threads = threading.local()


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, on an event loop of the calling thread."""
    if not hasattr(_threads, "runner"):
        _threads.runner = asyncio.Runner()
    result: T = _threads.runner.run(work)
    return result
