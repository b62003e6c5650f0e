"""A guard that keeps allows: when it asks, and when it does not."""

import asyncio
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from pdp_client import (
    AnswerSource,
    AsyncGuard,
    Decision,
    Forbidden,
    Guard,
    PdpUnavailable,
    Question,
    Resource,
)
from pdpapi.v1 import core_pb2
from pdpapi.v1.change_service_pb2 import (
    CHANGE_KIND_ORGANIZATION,
    CHANGE_KIND_RESOURCE,
    CHANGE_KIND_USER,
)
from pdpapi.v1.decision_service_pb2 import BatchCheckResponse

from clients.python.tests.kit.answerer import ACTOR, Answerer, Stream, changed, denied, reusable
from clients.python.tests.kit.caches import status
from tests.kit.waiting import eventually

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyXzEifQ.c2lnbmF0dXJl"
COURSE = Resource("course", "c", parent=Resource("school", "s"))


@pytest.fixture
def caching(teller: Answerer) -> Iterator[Guard]:
    """With a lease, which the test has to keep alive by `lease`."""
    teller.says(reusable())
    with Guard(teller.address, deadline_seconds=10, cache=True) as guard:
        eventually(lambda: teller.streams)
        lease(teller, guard)
        yield guard


def lease(teller: Answerer, guard: Guard, revision: int = 7) -> Stream:
    """A lease for a second from about now."""
    before = status(guard).lease_ends_at
    teller.streams[-1].lease(revision)
    eventually(lambda: status(guard).lease_ends_at > before)
    return teller.streams[-1]


def kept(guard: Guard, teller: Answerer, *question: object) -> Decision:
    """Asks twice; the second answer, which has to be a kept one."""
    first = guard.check(TOKEN, *question)
    lease(teller, guard)
    asked = len(teller.requests)
    second = guard.check(TOKEN, *question)
    assert len(teller.requests) == asked
    assert first.source is AnswerSource.DECIDED
    assert second.source is AnswerSource.CACHED
    return second


def test_an_equal_question_is_answered_without_a_call(teller: Answerer, caching: Guard):
    again = kept(caching, teller, "course:edit", COURSE, {"ip": "10.0.0.1"})
    assert again.decision_id == "0198c0de-0000-7000-8000-000000000001"
    assert caching.check(TOKEN, "course:edit", COURSE, {"ip": "10.0.0.1"}) is again
    assert caching.require(TOKEN, "course:edit", COURSE, {"ip": "10.0.0.1"}) == again.actor


def test_any_difference_in_what_is_sent_is_another_question(teller: Answerer, caching: Guard):
    kept(caching, teller, "course:edit", COURSE, {"hour": 1})
    lease(teller, caching)
    for token, permission, resource, context, revision in (
        (TOKEN + "x", "course:edit", COURSE, {"hour": 1}, 0),
        (TOKEN, "course:read", COURSE, {"hour": 1}, 0),
        (TOKEN, "course:edit", Resource("course", "c"), {"hour": 1}, 0),
        (TOKEN, "course:edit", COURSE, {"hour": True}, 0),
        (TOKEN, "course:edit", COURSE, None, 0),
        (TOKEN, "course:edit", COURSE, {"hour": 1}, 5),
    ):
        decision = caching.check(token, permission, resource, context, at_least_revision=revision)
        assert decision.source is AnswerSource.DECIDED
    assert len(teller.requests) == 7


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(denied(epoch="e", reusable_for={"seconds": 60}), id="a denial"),
        pytest.param(reusable(epoch="f"), id="of another epoch"),
        pytest.param(reusable(source=core_pb2.ANSWER_SOURCE_CACHED), id="another's kept one"),
        pytest.param(reusable(source=core_pb2.ANSWER_SOURCE_STAYED_OPEN), id="fail-open window"),
        pytest.param(denied(decision=1, denial_kind=0, epoch="e"), id="without reusable_for"),
    ],
)
def test_what_is_no_fresh_reusable_allow_is_asked_for_each_time(
    teller: Answerer, caching: Guard, answer: core_pb2.Decision
):
    teller.says(answer)
    for _ in range(2):
        source = caching.check(TOKEN, "course:edit").source
        assert source is list(AnswerSource)[answer.source]
    assert len(teller.requests) == 2


def test_an_answer_of_a_source_that_is_not_known_is_none(teller: Answerer, caching: Guard):
    teller.says(reusable(source=9))
    with pytest.raises(PdpUnavailable, match="unknown source 9"):
        caching.check(TOKEN, "course:edit")


def test_an_error_is_never_cached_and_never_answered_from_the_cache(
    teller: Answerer, caching: Guard
):
    teller.fails(grpc.StatusCode.INTERNAL)
    for _ in range(2):
        with pytest.raises(PdpUnavailable):
            caching.check(TOKEN, "course:edit")
    assert len(teller.requests) == 2


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (CHANGE_KIND_USER, ["user_1"]),
        (CHANGE_KIND_ORGANIZATION, ["org_1"]),
        (CHANGE_KIND_RESOURCE, ["course", "c"]),
        (CHANGE_KIND_RESOURCE, ["school", "s"]),
    ],
)
def test_a_change_of_what_the_answer_depends_on_makes_it_ask(
    teller: Answerer, caching: Guard, kind: int, key: list[str]
):
    teller.says(reusable(ancestors=[core_pb2.ResourceRef(type="school", id="s")]))
    kept(caching, teller, "course:edit", COURSE)
    teller.says(denied(revision=8))
    stream = lease(teller, caching)
    stream.tell(changed(8, kind, *key))
    lease(teller, caching, 8)
    with pytest.raises(Forbidden):
        caching.require(TOKEN, "course:edit", COURSE)


def test_a_change_of_something_else_drops_nothing(teller: Answerer, caching: Guard):
    kept(caching, teller, "course:edit", COURSE)
    stream = lease(teller, caching)
    stream.tell(
        changed(8, CHANGE_KIND_USER, "user_2"),
        changed(9, CHANGE_KIND_RESOURCE, "course", "d"),
        changed(10, CHANGE_KIND_ORGANIZATION, "org_2"),
    )
    lease(teller, caching, 10)
    assert caching.check(TOKEN, "course:edit", COURSE).source is AnswerSource.CACHED


def test_without_a_lease_it_asks(teller: Answerer, caching: Guard):
    kept(caching, teller, "course:edit")
    eventually(lambda: not status(caching).live)
    assert caching.check(TOKEN, "course:edit").source is AnswerSource.DECIDED


@pytest.mark.parametrize("off", [-3_600, 3_600])
def test_the_end_of_the_answer_is_counted_on_a_clock_that_nobody_sets(
    teller: Answerer, caching: Guard, off: int
):
    """By the PDP's wall clock the answer ends an hour from here, or has ended."""
    answer = reusable(reusable_until={"seconds": int(time.time()) + off})
    answer.reusable_for.FromMilliseconds(300)
    teller.says(answer)

    def is_kept() -> bool:
        return caching.check(TOKEN, "course:edit").source is AnswerSource.CACHED

    def asks_and_keeps() -> bool:
        nonlocal asked_at
        lease(teller, caching)
        asked_at = time.monotonic()
        return not is_kept() and is_kept()

    asked_at = 0.0
    eventually(asks_and_keeps)
    eventually(lambda: not is_kept(), seconds=0.8)
    assert time.monotonic() >= asked_at + 0.3


def test_a_batch_is_asked_each_time(teller: Answerer, caching: Guard):
    result = reusable()
    result.ClearField("actor")
    teller.says(BatchCheckResponse(results=[result], actor=ACTOR))
    for _ in range(2):
        (decision,) = caching.batch(TOKEN, [Question("course:edit")])
        assert decision.source is AnswerSource.DECIDED
    assert len(teller.requests) == 2


def test_a_closed_guard_gives_nothing_from_before(teller: Answerer, caching: Guard):
    kept(caching, teller, "course:edit")
    caching.close()
    with pytest.raises(ValueError, match="closed"):
        caching.check(TOKEN, "course:edit")
    assert (status(caching).entries, status(caching).live) == (0, False)


def test_a_peer_without_a_change_stream_is_asked_each_time(
    answerer: Answerer, caplog: pytest.LogCaptureFixture
):
    answerer.says(reusable())
    with Guard(answerer.address, deadline_seconds=10, cache=True) as guard:
        eventually(lambda: "the change stream is refused" in caplog.text)
        for _ in range(2):
            assert guard.check(TOKEN, "course:edit").source is AnswerSource.DECIDED


def test_a_guard_caches_nothing_by_default(teller: Answerer):
    teller.says(reusable())
    with Guard(teller.address, deadline_seconds=10) as guard:
        assert guard.cache_status is None
        for _ in range(2):
            assert guard.check(TOKEN, "course:edit").source is AnswerSource.DECIDED
    assert teller.streams == []


async def crowd(guard: AsyncGuard, teller: Answerer, count: int) -> list[asyncio.Task[Decision]]:
    """So many who ask the same, once the first is being answered."""
    tasks = [asyncio.create_task(guard.check(TOKEN, "course:edit", COURSE)) for _ in range(count)]
    async with asyncio.timeout(10):
        while not teller.requests:  # the others wait for the first, or ask themselves
            await asyncio.sleep(0.005)
    return tasks


@pytest.fixture
def slow(teller: Answerer) -> threading.Event:
    """Answers wait for this."""
    come = threading.Event()

    def answer(_request: object, _context: object) -> object:
        assert come.wait(10)
        return reusable()

    teller.answer = answer
    return come


def test_concurrent_tasks_with_one_key_ask_once(
    teller: Answerer, caching: Guard, slow: threading.Event
):
    async def ask() -> list[Decision]:
        tasks = await crowd(AsyncGuard.of(caching), teller, 200)
        slow.set()
        return await asyncio.gather(*tasks)

    sources = [decision.source for decision in asyncio.run(ask())]
    assert len(teller.requests) == 1
    assert sources.count(AnswerSource.DECIDED) == 1
    assert sources.count(AnswerSource.CACHED) == 199


def test_if_the_asking_task_is_cancelled_another_asks(
    teller: Answerer, caching: Guard, slow: threading.Event
):
    async def ask() -> list[Decision]:
        guard = AsyncGuard.of(caching)
        [first] = await crowd(guard, teller, 1)
        others = [asyncio.create_task(guard.check(TOKEN, "course:edit", COURSE)) for _ in range(20)]
        await asyncio.sleep(0)
        first.cancel()
        slow.set()
        return await asyncio.gather(*others)

    assert all(decision.allowed for decision in asyncio.run(ask()))
    assert len(teller.requests) > 1
    assert status(caching).in_flight == 0


def test_a_task_that_waited_asks_again_after_a_change(
    teller: Answerer, caching: Guard, slow: threading.Event
):
    """The answer in the air is from before a revocation; who came after it must not get it."""

    async def ask() -> list[Decision]:
        guard = AsyncGuard.of(caching)
        [first] = await crowd(guard, teller, 1)
        teller.streams[-1].tell(changed(8, CHANGE_KIND_USER, "user_1"))
        async with asyncio.timeout(10):
            while status(caching).revision < 8:
                await asyncio.sleep(0.005)
        second = asyncio.create_task(guard.check(TOKEN, "course:edit", COURSE))
        await asyncio.sleep(0)
        teller.says(denied(revision=8))
        slow.set()
        return await asyncio.gather(first, second)

    first, second = asyncio.run(ask())
    assert first.allowed
    assert not second.allowed
