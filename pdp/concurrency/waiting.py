"""How a coroutine waits: for another coroutine within a time, for a future of a thread, and for
work in a bounded pool.

Futures and pools do not bind the work to an event loop: one waiting coroutine may be cancelled, or
run on another loop, and the work continues for the others.
"""

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from pdp.errors import DeadlineExceeded

T = TypeVar("T")


@types.coroutine
def resumed(work: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, None, T]:
    """Continues a manually started coroutine that waits for `awaited`."""
    while True:
        error: BaseException | None = None
        try:
            yield awaited
        except BaseException as thrown:  # noqa: BLE001  # passed on to `work`, mainly cancellations
            error = thrown
        try:
            awaited = work.send(None) if error is None else work.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result


async def within(seconds: float, work: Coroutine[Any, Any, T], late: str) -> T:
    """Awaits `work` for at most so many seconds. Then cancels it, and raises DeadlineExceeded with
    the message `late`.

    A timeout costs more than most work, so it is set only if the work has to wait.
    """
    ends_at = asyncio.get_running_loop().time() + seconds
    try:
        awaited = work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    try:
        async with asyncio.timeout_at(ends_at) as deadline:
            return await resumed(work, awaited)
    except TimeoutError:
        if deadline.expired():
            raise DeadlineExceeded(late) from None
        raise


async def done_within(future: "Future[Any]", seconds: float) -> bool:
    """Whether `future` is done, after at most `seconds`. Never cancels it."""
    if not future.done():
        wrapped = asyncio.wrap_future(future)
        # Marks an exception as retrieved: callers get it from `future`.
        wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait((wrapped,), timeout=seconds)
    return future.done()


async def in_pool(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Runs `work` in a thread of `pool`; returns or raises what it does.

    If the caller is cancelled, work that has begun completes and its result is dropped.
    """
    run = contextvars.copy_context().run  # as asyncio.to_thread: a trace continues in the thread
    return await asyncio.get_running_loop().run_in_executor(pool, run, work)
