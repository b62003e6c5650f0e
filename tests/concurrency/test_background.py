"""A background task continues after failures, logs each once, and ends when it is stopped."""

import threading
from collections.abc import Callable, Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from pdp.concurrency.background import BackgroundTask
from pdp.errors import DatabaseUnavailable
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually

Start = Callable[..., BackgroundTask]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[BackgroundTask] = []

    def begin(turn: Callable[[], float | None], **options: object) -> BackgroundTask:
        task = BackgroundTask(
            "tested",
            turn,
            retry_seconds=(0.001, 0.002),
            log=structlog.get_logger("tests"),
            failed="it_fails",
            **options,  # type: ignore[arg-type]
        )
        started.append(task)
        task.start()
        return task

    yield begin
    for task in started:
        task.stop(5)


class Turns:
    """Turns that fail as long as there is an error."""

    def __init__(self, error: Exception | None = None, pause: float | None = 0) -> None:
        self.error = error
        self.count = 0
        self._pause = pause

    def __call__(self) -> float | None:
        self.count += 1
        if self.error is not None:
            raise self.error
        return self._pause


def test_a_failure_is_logged_when_it_begins_and_when_it_ends(start: Start) -> None:
    turns, recovered = Turns(DatabaseUnavailable("away")), threading.Event()
    with capture_logs() as logs:
        task = start(turns, on_recovered=recovered.set)
        eventually(lambda: turns.count > 5)
        assert task.problem == "away"
        turns.error = None
        assert recovered.wait(5)
        task.stop(5)
    assert task.problem is None
    assert [(line["event"], line["error"]) for line in logs] == [("it_fails", "away")]


def test_another_failure_is_logged_too(start: Start) -> None:
    turns = Turns(DatabaseUnavailable("away"))
    with capture_logs() as logs:
        task = start(turns)
        eventually(lambda: task.problem == "away")
        turns.error = DatabaseUnavailable("of an older schema")
        eventually(lambda: task.problem == "of an older schema")
    assert [line["error"] for line in logs] == ["away", "of an older schema"]


def test_a_bug_does_not_end_the_task_and_its_text_is_no_problem_to_show(start: Start) -> None:
    turns = Turns(RuntimeError("secret"))
    with capture_logs() as logs:
        task = start(turns)
        eventually(lambda: turns.count > 3)
        assert task.problem == "an internal error, which the log has"
        task.stop(5)
    assert {line["log_level"] for line in logs} == {"error"}


def test_a_task_that_waits_takes_its_turn_when_it_is_woken(start: Start) -> None:
    turns = Turns(pause=None)
    task = start(turns)
    eventually(lambda: turns.count == 1)
    task.wake()
    eventually(lambda: turns.count == 2)


def test_a_task_that_waits_or_sleeps_ends_at_once(start: Start) -> None:
    ended = [threading.Event(), threading.Event()]
    waiting = start(Turns(pause=None), at_end=ended[0].set)
    tasks: list[BackgroundTask] = [waiting]

    def sleep() -> float:
        tasks[1].sleep(3_600)
        return 0

    begun = threading.Event()
    tasks.append(
        BackgroundTask(
            "sleeper",
            lambda: (begun.set(), sleep())[1],
            retry_seconds=(1, 1),
            log=None,
            failed="no",
            at_end=ended[1].set,
        )
    )
    tasks[1].start()
    assert begun.wait(5)
    watch = Stopwatch()
    for task in tasks:
        task.stop(5)
    assert all(event.is_set() for event in ended)
    assert watch.seconds < 1


def test_a_task_that_was_never_started_stops(start: Start) -> None:
    task = BackgroundTask("idle", lambda: 0, retry_seconds=(1, 1), log=None, failed="no")
    task.stop(1)
