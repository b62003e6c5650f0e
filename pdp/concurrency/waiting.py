"""How a coroutine waits: for another that was started by hand, for a signal of a thread, and for
work in a bounded pool.

Signals and pools do not tie the work to an event loop: whoever waits may be cancelled, or be on
another loop, and the work goes on for the others who wait for it.
"""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def resumed(work: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, None, T]:
    """Goes on with a coroutine that was started by hand and waits for `awaited`."""
    while True:
        error: BaseException | None = None
        try:
            yield awaited
        except BaseException as thrown:  # noqa: BLE001  # it is for `work`, a cancellation above all
            error = thrown
        try:
            awaited = work.send(None) if error is None else work.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result


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
