"""Long requests take turns on the event loop."""

import asyncio
from itertools import pairwise

from pdp.concurrency.pacing import Pace


def test_a_short_request_waits_for_a_slice_of_one_long_request_and_not_of_all() -> None:
    slices = 0

    async def long() -> None:
        nonlocal slices
        pace = Pace()
        for _ in range(20):
            await pace.give_way()
            slices += 1

    async def scenario() -> list[int]:
        requests = [asyncio.create_task(long()) for _ in range(50)]
        await asyncio.sleep(0)
        for cancelled in requests[::2]:  # the others go on
            cancelled.cancel()
        seen = [slices]
        while slices < 25 * 20:
            await asyncio.sleep(0)
            seen.append(slices)
        await asyncio.gather(*requests[1::2])
        return seen

    for _ in range(2):  # also on the next event loop
        slices = 0
        seen = asyncio.run(asyncio.wait_for(scenario(), 20))
        assert max(after - before for before, after in pairwise(seen)) == 1


def test_long_requests_get_turns_one_after_the_other() -> None:
    turns: list[str] = []

    async def long(name: str) -> None:
        pace = Pace()
        for _ in range(3):
            await pace.give_way()
            turns.append(name)

    async def scenario() -> None:
        await asyncio.gather(*map(long, "abc"))

    asyncio.run(scenario())
    assert "".join(turns) == "abcabcabc"


def test_a_request_that_never_goes_on_keeps_no_turn_from_others() -> None:
    async def work() -> None:
        abandoned = [Pace().give_way().__await__() for _ in range(3)]
        for steps in abandoned:
            next(steps)  # begun by hand, and kept
        await asyncio.wait_for(Pace().give_way(), 10)
        for steps in abandoned:
            steps.close()

    asyncio.run(work())
