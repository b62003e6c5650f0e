"""How a coroutine waits for another that was started by hand."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from pdp.concurrency.waiting import resumed


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
