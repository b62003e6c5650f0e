"""Waiting for a condition, with a deadline, instead of sleeping for luck."""

import time
from collections.abc import Callable, Iterable

from tests.kit.stall import Stopwatch


def eventually(
    condition: Callable[[], object],
    *,
    seconds: float = 10.0,
    what: str = "",
    pids: Iterable[int] = (),
) -> float:
    """Returns once `condition()` is true, and how long that took; fails the test after `seconds`.

    Time in which the machine did not run this process, or those of `pids`, does not count.
    """
    watch = Stopwatch(pids)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline and watch.seconds > seconds:
            raise AssertionError(
                f"did not happen within {seconds} s, nor within another {watch.stalled:.2f} s that"
                f" the machine was busy with something else: {what or condition}"
            )
        time.sleep(0.005)
    return watch.seconds
