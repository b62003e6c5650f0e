"""The listener, and the files that a process may open."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from pdp.process.listener import EventLoop

SCRIPT = """
import resource, socket
from pdp.http import http_application
from pdp.process.metrics import Metrics
from tests.kit.wire.listening import listening
for limits in {limits}:
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with listening(http_application(Metrics({{}}), list)) as port:
        print(port, flush=True)
        input()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as probe:
            probe.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: pdp\\r\\n\\r\\n")
            print(probe.recv(15), resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)
        input()
"""


def test_more_connections_than_files_do_not_end_the_listener() -> None:
    """A host allows 1,024 files by default. Without room for one more, accepting would fail."""
    limits_and_raised = {(128, 20_000): 8448, (128, 300): 300}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(limits=list(limits_and_raised))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for (_, hard), raised in limits_and_raised.items():
            port = int(next(line for line in process.stdout if line.strip().isdecimal()))
            peers = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(400)]
            for peer in peers:
                peer.sendall(b"GET / HTTP/1.1\r\n")
            process.stdin.write("\n")
            for peer in peers:
                peer.close()
            process.stdin.flush()
            said = next(line for line in process.stdout if "HTTP" in line)
            assert said == f"b'HTTP/1.1 200 OK' ({raised}, {hard})\n"
            process.stdin.write("\n")
            process.stdin.flush()


@pytest.fixture
def event_loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    loop.start()
    yield loop
    loop.stop()


async def _made_in_a_callback(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The task of a coroutine, made as h2corn makes it: by a callback, not by another task."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Any] = loop.create_future()

    def callback() -> None:
        task = loop.create_task(make(), name="request")
        made.set_result((task, task.done()))

    loop.call_soon(callback)
    return await made


only_where_ours = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="h2corn itself asks for eager tasks"
)


@only_where_ours
def test_a_request_that_never_waits_is_done_as_soon_as_its_task_is_made(
    event_loop: EventLoop,
) -> None:
    async def answer() -> str:
        assert asyncio.current_task() is not None
        return "answer"

    task, done = event_loop.run(_made_in_a_callback(answer))
    assert done
    assert task.result() == "answer"


def test_an_error_of_a_request_that_never_waits_is_the_outcome_of_its_task(
    event_loop: EventLoop,
) -> None:
    async def answer() -> None:
        raise ValueError("a bug")

    async def outcome() -> BaseException | None:
        task, _ = await _made_in_a_callback(answer)
        await asyncio.wait((task,))
        error: BaseException | None = task.exception()
        return error

    assert isinstance(event_loop.run(outcome()), ValueError)


def test_a_request_that_waits_goes_on_later_and_obeys_its_timeout(event_loop: EventLoop) -> None:
    async def answer() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "too late"
        return "never"

    async def outcome() -> tuple[bool, str]:
        task, done = await _made_in_a_callback(answer)
        return done, await task

    assert event_loop.run(outcome()) == (False, "too late")


def test_a_request_can_be_cancelled_where_it_first_waits(event_loop: EventLoop) -> None:
    seen: list[str] = []

    async def answer() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("gave up")

    async def cancelled() -> bool:
        task, _ = await _made_in_a_callback(answer)
        task.cancel()
        await asyncio.wait((task,))
        was: bool = task.cancelled()
        return was

    assert event_loop.run(cancelled())
    assert seen == ["gave up"]


def test_a_task_that_another_task_makes_starts_after_it_waits(event_loop: EventLoop) -> None:
    """Only one task runs at a time, and each sees itself as the current one."""
    order: list[str] = []

    async def inner() -> None:
        order.append("inner")

    async def outer() -> None:
        task = asyncio.create_task(inner())
        order.append("outer")
        await task

    event_loop.run(outer())
    assert order == ["outer", "inner"]
