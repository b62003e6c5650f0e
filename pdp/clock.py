"""The clocks: passed in everywhere, read here only.

- `wall_clock` is the operating system's time. It may be stepped, either way.
- `DecisionClock` is what is decided by: the wall clock, but it never goes back.
- Bounds (freshness, deadlines, cooldowns) use neither: they use `time.monotonic`.
"""

import logging
import threading
import time
from collections.abc import Callable

from pdp.gauges import Gauges

log = logging.getLogger(__name__)

Clock = Callable[[], float]
"""Returns the time as seconds since 1970-01-01 UTC."""

STEP_SECONDS = 2.0
"""From here on a difference between the two clocks is a step. A leap second is one second; NTP
slews by at most 0.05 % (RFC 5905), which is less within one observation."""
OBSERVATION_SECONDS = 60.0
"""For so long differences are summed up, so that many small steps are one."""
SLEW = 0.01
"""How much slower decision time runs while it is ahead of the wall clock by less than a step."""
AHEAD_SECONDS_MAX = 60.0
"""Clerk's session tokens live for so long: further ahead, every fresh token has expired."""
TAKEN_BACK_SECONDS = 3600.0
"""For so long after a step forward a step back is taken as its correction."""
_PAUSE_SECONDS = 0.05
_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def wall_clock() -> float:
    """The operating system's time, in seconds since 1970-01-01 UTC."""
    return time.time()


def elapsed_clock() -> float:
    """Seconds since some moment in the past: no step changes it, and it goes on while the machine
    is suspended, where the system has such a clock (Linux: CLOCK_BOOTTIME, clock_gettime(2))."""
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


class DecisionClock:
    """The time that is decided by. Never goes back, and is never behind the wall clock.

    Where the wall clock is stepped back, decision time runs on by the elapsed time until the wall
    clock has caught up: what has expired stays expired. A step forward is followed. Every step is
    logged and counted. Thread-safe; made in the process that uses it.
    """

    def __init__(self, wall: Clock, elapsed: Clock) -> None:
        """`elapsed` counts seconds from any moment on, without steps."""
        self._wall = wall
        self._elapsed = elapsed
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._now = self._anchor_wall = wall()
        self._at = self._anchor_at = elapsed()
        """When, by `elapsed`, `_now` was the time."""
        self._ahead = 0.0
        self._steps = 0
        self._forward_at = -float("inf")
        self._taken_back = False

    def __call__(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        with self._lock:
            before, wall, after = self._elapsed(), self._wall(), self._elapsed()
            if after - before <= _PAUSE_SECONDS:  # else the difference is a pause of the process
                self._observe(wall, before)
            passed = max(0.0, before - self._at)
            # Each so that a pause between the readings adds nothing to what has passed.
            if wall >= self._now + passed:
                self._now, self._at, self._ahead, self._taken_back = wall, after, 0.0, False
                return wall
            small = self._now + passed - wall < STEP_SECONDS
            running_on = self._now + passed * (1 - SLEW if small else 1)
            self._now, self._at = (wall, after) if wall >= running_on else (running_on, before)
            self._ahead = self._now - wall
            if not self._ahead:
                self._taken_back = False
            return self._now

    @property
    def steps(self) -> int:
        """Steps of the wall clock that were seen, either way."""
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
        """Whether the time can be decided by. Not so after a step forward that was taken back, and
        not so far ahead of the wall clock that fresh tokens have expired: the process cannot know
        which time is right, and would refuse people for as long as it lives."""
        return self.ahead_seconds() <= AHEAD_SECONDS_MAX and not self._taken_back

    def _observe(self, wall: float, at: float) -> None:
        """Notices a step, of two readings at one moment."""
        passed = at - self._anchor_at
        step = wall - self._anchor_wall - passed
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
            self._anchor_wall, self._anchor_at = wall, at
