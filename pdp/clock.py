"""The clocks: passed in everywhere, read only here.

- `wall_clock` is the operating system's time. It may be stepped in both directions.
- `DecisionClock` is the time of decisions: the wall clock, but it never goes back.
- Time limits (freshness, deadlines, cooldowns) use `time.monotonic` instead.
"""

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from pdp.gauges import Gauges

log = logging.getLogger(__name__)

Clock = Callable[[], float]
"""Returns the time as seconds since 1970-01-01 UTC."""

STEP_SECONDS = 2.0
"""The smallest difference between the clocks that counts as a step. A leap second is one second;
NTP slews by at most 0.05 % (RFC 5905), which is less within one observation."""
OBSERVATION_SECONDS = 60.0
"""How long differences are added up, so that many small steps count as one."""
SLEW = 0.01
"""How much slower decision time runs while it is less than a step ahead of the wall clock."""
AHEAD_SECONDS_MAX = 60.0
"""The lifetime of Clerk's session tokens: further ahead, every new token has expired."""
TAKEN_BACK_SECONDS = 3600.0
"""How long after a step forward a step back counts as its correction."""
_PAUSE_SECONDS = 0.05


def wall_clock() -> float:
    """The operating system's time, in seconds since 1970-01-01 UTC."""
    return time.time()


_BOOTTIME: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)
elapsed_clock: Clock = (
    time.monotonic if _BOOTTIME is None else functools.partial(time.clock_gettime, _BOOTTIME)
)
"""Seconds since an arbitrary moment, without steps. Includes the time when the machine is
suspended, if the system has such a clock (Linux: CLOCK_BOOTTIME, clock_gettime(2))."""


class DecisionClock:
    """The time of decisions. Never goes back, and is never behind the wall clock.

    After a step back of the wall clock, decision time continues by the elapsed time until the wall
    clock has caught up: expired tokens and grants stay expired. A step forward is followed. Every
    step is logged and counted. Thread-safe; create it in the process that uses it.
    """

    def __init__(self, system: Clock, elapsed: Clock) -> None:
        """Starts at the time of `system`, the wall clock. `elapsed` has any start and no steps."""
        self._wall = system
        self._elapsed = elapsed
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._now = self._anchor_wall = system()
        self._at = self._anchor_at = elapsed()
        """The reading of `elapsed` at `_now`."""
        self._ahead = 0.0
        self._steps = 0
        self._forward_at = -float("inf")
        self._taken_back = False

    def __call__(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        with self._lock:
            before, wall_time, after = self._elapsed(), self._wall(), self._elapsed()
            if after - before <= _PAUSE_SECONDS:  # else the difference is a pause of the process
                self._observe(wall_time, before)
            passed = max(0.0, before - self._at)
            # In each case a pause between the readings adds nothing to the elapsed time.
            if wall_time >= self._now + passed:
                self._now, self._at, self._ahead, self._taken_back = wall_time, after, 0.0, False
                return wall_time
            small = self._now + passed - wall_time < STEP_SECONDS
            running_on = self._now + passed * (1 - SLEW if small else 1)
            self._now, self._at = (
                (wall_time, after) if wall_time >= running_on else (running_on, before)
            )
            self._ahead = self._now - wall_time
            if not self._ahead:
                self._taken_back = False
            return self._now

    @property
    def steps(self) -> int:
        """The number of steps of the wall clock, in both directions."""
        return self._steps

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "pdp_clock_steps": (
                "Steps of the wall clock that were seen, either way.",
                lambda: self.steps,
            ),
            "pdp_clock_ahead_seconds": (
                "By how much decision time is ahead of the wall clock.",
                self.ahead_seconds,
            ),
        }

    def ahead_seconds(self) -> float:
        """By how much decision time is ahead of the wall clock."""
        self()
        return self._ahead

    def holds(self) -> bool:
        """Whether decisions can use this time.

        Not after a step forward that was taken back, and not if it is so far ahead of the wall
        clock that new tokens have expired: the process cannot know which time is right, and would
        refuse valid tokens until it ends.
        """
        return self.ahead_seconds() <= AHEAD_SECONDS_MAX and not self._taken_back

    def _observe(self, wall_time: float, at: float) -> None:
        """Detects a step from two readings of the same moment."""
        passed = at - self._anchor_at
        step = wall_time - self._anchor_wall - passed
        if abs(step) >= STEP_SECONDS:
            self._steps += 1
            if step > 0:
                self._forward_at = at
                log.warning("the wall clock went forward by %.1f s: decision time follows", step)
            elif at - self._forward_at < TAKEN_BACK_SECONDS:
                self._taken_back = True
                log.error(
                    "the wall clock went forward and then back by %.1f s: decision time does not "
                    "go back; check the clock, then restart this process",
                    -step,
                )
            else:
                log.warning(
                    "the wall clock went back by %.1f s: decision time runs on by the elapsed time",
                    -step,
                )
        if abs(step) >= STEP_SECONDS or passed >= OBSERVATION_SECONDS:
            self._anchor_wall, self._anchor_at = wall_time, at
