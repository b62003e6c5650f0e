"""Waiting for a condition, with a deadline, instead of sleeping for luck."""

import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], *, seconds: float = 10.0, what: str = "") -> None:
    """Returns once `condition()` is true; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {seconds} s: {what or condition}")
        time.sleep(0.005)
