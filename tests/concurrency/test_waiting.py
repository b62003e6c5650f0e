"""How a coroutine waits for another: one that was started by hand, and one within a time."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from pdp.concurrency.waiting import resumed, within
from pdp.errors import DeadlineExceeded


async def _by_hand(work: Coroutine[Any, Any, str]) -> str:
    return await resumed(work, work.send(None))


def test_a_coroutine_that_was_started_by_hand_goes_on_to_its_end() -> None:
    async def work() -> str:
        waited = 0
        for _ in range(3):
            await asyncio.sleep(0)
            waited += 1
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, "done")
        return f"{waited} {await future}"

    assert asyncio.run(_by_hand(work())) == "3 done"


def test_its_error_is_the_error_of_who_waits() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        asyncio.run(_by_hand(work()))


def test_a_cancellation_reaches_it_where_it_waits() -> None:
    seen: list[str] = []

    async def work() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("gave up")
        return "never"

    async def cancelled() -> bool:
        task = asyncio.create_task(_by_hand(work()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        return task.cancelled()

    assert asyncio.run(cancelled())
    assert seen == ["gave up"]


def test_work_that_need_not_wait_has_its_result_whatever_the_time() -> None:
    async def work() -> str:
        return "done"

    assert asyncio.run(within(0, work(), "late")) == "done"


def test_work_that_waits_too_long_is_cancelled_and_late() -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with pytest.raises(DeadlineExceeded, match="late"):
        asyncio.run(within(0.01, work(), "late"))
    assert seen == ["cancelled"]


def test_a_timeout_of_the_work_itself_is_an_error_of_the_work() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise TimeoutError("of the work")

    with pytest.raises(TimeoutError, match="of the work"):
        asyncio.run(within(60, work(), "late"))
