"""Decision time, with clocks that the test moves."""

import logging
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.clock import (
    AHEAD_SECONDS_MAX,
    OBSERVATION_SECONDS,
    STEP_SECONDS,
    TAKEN_BACK_SECONDS,
    DecisionClock,
    elapsed_clock,
    wall_clock,
)

NOON = 1_800_000_000.0


class Machine:
    """A wall clock that can be stepped, and the time that passes."""

    def __init__(self) -> None:
        self.wall_time = NOON
        self.elapsed = 1000.0
        self.pauses: list[float] = []
        """Pauses of the process, each between two readings."""
        self.clock = DecisionClock(self._read_wall, self._read_elapsed)

    def passes(self, seconds: float) -> float:
        self.wall_time += seconds
        self.elapsed += seconds
        return self.clock()

    def steps(self, seconds: float) -> float:
        self.wall_time += seconds
        return self.clock()

    def _read_wall(self) -> float:
        wall_time = self.wall_time
        self._pause()
        return wall_time

    def _read_elapsed(self) -> float:
        elapsed = self.elapsed
        self._pause()
        return elapsed

    def _pause(self) -> None:
        seconds = self.pauses.pop() if self.pauses else 0.0
        self.wall_time += seconds
        self.elapsed += seconds


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_without_steps_it_is_the_wall_clock(machine: Machine) -> None:
    for seconds in (0, 0.001, 1, 59, 3600, 86_400):
        assert machine.passes(seconds) == machine.wall_time
    assert (machine.clock.steps, machine.clock.ahead_seconds()) == (0, 0)
    assert machine.clock.holds()


def test_after_a_step_back_it_runs_on_and_what_has_expired_stays_expired(machine: Machine) -> None:
    expires_at = NOON + 60
    assert machine.passes(61) > expires_at
    assert machine.steps(-14) == NOON + 61
    assert machine.wall_time < expires_at  # the control: the wall clock would allow it again
    assert machine.passes(100) == NOON + 161
    assert machine.clock.ahead_seconds() == 14
    assert machine.clock.steps == 1
    assert machine.clock.holds()


def test_once_the_wall_clock_has_caught_up_it_is_followed_again(machine: Machine) -> None:
    machine.steps(-14)
    assert machine.passes(10) == NOON + 10
    assert machine.steps(20) == NOON + 16
    assert machine.clock.ahead_seconds() == 0
    assert machine.passes(5) == NOON + 21
    assert machine.clock.steps == 2


def test_a_step_forward_is_followed(machine: Machine) -> None:
    assert machine.steps(3600) == NOON + 3600
    assert machine.clock.steps == 1
    assert machine.clock.holds()


@pytest.mark.parametrize("back", [-3600.0, -5.0])
def test_a_step_forward_that_is_taken_back_is_an_obstacle_until_the_wall_clock_has_caught_up(
    machine: Machine, back: float
) -> None:
    machine.steps(3600)
    machine.passes(TAKEN_BACK_SECONDS - 1)
    now = machine.steps(back)
    assert now == NOON + 3600 + TAKEN_BACK_SECONDS - 1
    assert not machine.clock.holds()
    assert machine.passes(10) == now + 10
    assert not machine.clock.holds()
    machine.steps(-back)
    assert machine.clock.holds()


def test_a_step_back_long_after_one_forward_is_a_step_of_its_own(machine: Machine) -> None:
    machine.steps(14)
    machine.passes(TAKEN_BACK_SECONDS + 1)
    machine.steps(-5)
    assert machine.clock.holds()


def test_further_ahead_than_a_token_lives_is_an_obstacle(machine: Machine) -> None:
    """Whichever step came first, each fresh token would be refused as expired."""
    machine.steps(-AHEAD_SECONDS_MAX)
    assert machine.clock.holds()
    machine.steps(-STEP_SECONDS)
    assert not machine.clock.holds()


def test_steps_are_logged_once_each(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pdp.clock"):
        for _ in range(5):
            machine.passes(1)
        machine.steps(-14)
        machine.passes(5)
        machine.steps(30)
        machine.passes(5)
        machine.steps(-30)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "ERROR"]
    texts = [record.getMessage() for record in caplog.records]
    assert "went back by 14.0 s" in texts[0]
    assert "went forward by 30.0 s" in texts[1]
    assert "restart" in texts[2]


def test_a_leap_second_is_no_step_and_is_made_up_for(machine: Machine) -> None:
    machine.steps(-1)
    assert machine.clock() == NOON
    machine.passes(50)
    assert 0 < machine.clock.ahead_seconds() < 1
    for _ in range(100):
        machine.passes(1)
    assert machine.clock() == machine.wall_time
    assert machine.clock.steps == 0


def test_a_clock_that_is_slewed_has_no_steps(machine: Machine) -> None:
    """NTP slews by 500 ppm at most. A month of it, a look every minute, either way."""
    for rate in (-0.0005, 0.0005):
        for _ in range(30 * 24 * 60):
            machine.wall_time += 60 * rate
            machine.passes(60)
    assert machine.clock.steps == 0
    assert machine.clock.ahead_seconds() < STEP_SECONDS


def test_many_small_steps_are_a_step(machine: Machine) -> None:
    """Each alone is below the threshold; nobody holds the time still with them."""
    expires_at = NOON + 10
    for _ in range(200):
        machine.passes(0.2)
        machine.steps(-0.2)
    assert machine.clock() > expires_at
    assert machine.clock.steps > 0


@pytest.mark.parametrize("pauses", [[0, 0, 30], [0, 30, 0], [30, 0, 0], [30] * 3, [30] * 300])
def test_a_pause_between_two_readings_is_no_step(machine: Machine, pauses: list[float]) -> None:
    machine.passes(1)
    machine.pauses = pauses
    while machine.pauses:
        machine.clock()
    last = machine.clock()
    assert machine.passes(1) == machine.wall_time > last
    assert machine.clock.steps == 0
    assert machine.clock.ahead_seconds() == 0


def test_a_suspended_machine_wakes_without_a_step(machine: Machine) -> None:
    assert machine.passes(8 * 3600) == NOON + 8 * 3600
    assert machine.clock.steps == 0


def test_a_machine_that_was_frozen_whole_follows_the_correction(machine: Machine) -> None:
    """A paused virtual machine counts neither way; its wall clock is then set."""
    assert machine.steps(8 * 3600) == machine.wall_time
    assert machine.clock.steps == 1
    assert machine.clock.holds()


_MOVES = st.lists(
    st.tuples(
        st.floats(0, 2 * OBSERVATION_SECONDS),
        st.one_of(st.just(0.0), st.floats(-100, 100), st.floats(-1e9, 1e9)),
    ),
    max_size=60,
)


@given(_MOVES)
def test_it_never_goes_back_and_is_never_behind(moves: list[tuple[float, float]]) -> None:
    machine = Machine()
    last = machine.clock()
    for passed, step in moves:
        machine.passes(passed)
        now = machine.steps(step)
        assert now >= machine.wall_time
        assert now >= last
        if passed and now > machine.wall_time:  # it runs on: at least at 99 %
            assert now - last >= 0.98 * passed - 1e-3
        last = now


def test_threads_see_one_time_that_never_goes_back() -> None:
    machine = Machine()
    failures: list[tuple[float, float]] = []
    stop = threading.Event()

    def look() -> None:
        last = 0.0
        while not stop.is_set():
            now = machine.clock()
            if now < last:
                failures.append((last, now))
            last = now

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for step in range(300):
        machine.wall_time += (-1) ** step * 50
        machine.elapsed += 0.01
        machine.wall_time += 0.01
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_real_clocks_agree() -> None:
    clock = DecisionClock(wall_clock, elapsed_clock)
    for _ in range(1000):
        clock()
    assert abs(clock() - time.time()) < 1
    assert clock.steps == 0
