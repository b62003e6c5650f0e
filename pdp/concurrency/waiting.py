"""How a coroutine waits for threads: for a signal, and for work in a bounded pool.

Neither ties the work to an event loop: whoever waits may be cancelled, or be on another loop, and
the work goes on for the others who wait for it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


async def done_within(future: "Future[Any]", seconds: float) -> bool:
    """Whether `future` is done, after at most `seconds`. Never cancels it."""
    if not future.done():
        wrapped = asyncio.wrap_future(future)
        # Its exception, if any, is for whoever asks `future` for its result.
        wrapped.add_done_callback(lambda one: one.cancelled() or one.exception())
        await asyncio.wait((wrapped,), timeout=seconds)
    return future.done()


async def in_pool(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """What `work` returns or raises, done in a thread of `pool`.

    If the caller is cancelled, work that has begun ends by itself and its outcome is dropped.
    """
    return await asyncio.get_running_loop().run_in_executor(pool, work)
