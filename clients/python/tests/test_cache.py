"""The cache of decisions by itself: what it caches, until when, and which caller asks the PDP."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pdp_client import Question, Resource, Token
from pdp_client.cache import DecisionCache, Fresh, Touched, key_of
from pdp_client.messages import batch_request, check_request
from pdpapi.v1.change_service_pb2 import (
    CHANGE_KIND_ORGANIZATION,
    CHANGE_KIND_PERMISSION,
    CHANGE_KIND_RESOURCE,
    CHANGE_KIND_ROLE,
    CHANGE_KIND_UNSPECIFIED,
    CHANGE_KIND_USER,
    ChangedKey,
    ChangeKind,
)
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit import soak
from tests.kit.waiting import eventually

TOUCHED = Touched("user_1", "org_1", frozenset({("course", "c"), ("school", "s")}))


class Clock:
    """Seconds, as the test says."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> DecisionCache[str]:
    """At revision 7 of epoch `e`, with a lease for a second."""
    one = DecisionCache[str](entries_max=10, age_seconds_max=30, clock=clock)
    one.renew(7, "e", clock.now + 1)
    return one


def fresh(
    answer: str = "yes",
    *,
    sent_at: float = 100.0,
    epoch: str = "e",
    revision: int = 7,
    seconds: float | None = 60.0,
    touched: Touched = TOUCHED,
    weight: int = 1,
) -> Fresh[str]:
    return Fresh(answer, sent_at, epoch, revision, seconds, touched, weight)


def keep(cache: DecisionCache[str], key: bytes = b"k", one: Fresh[str] | None = None) -> None:
    cache.get_or_ask(key, lambda: one or fresh())


def lease_until(cache: DecisionCache[str], end: float) -> None:
    cache.renew(cache.position[1], "e", end)


def names_in(cache: DecisionCache[str]) -> int:
    return sum(len(keys) for keys in cache._state.by_name.values())


# --- what is cached, and until when ---------------------------------------------------------------


def test_an_answer_is_served_from_the_cache(cache: DecisionCache[str]):
    first = cache.get_or_ask(b"k", fresh)
    again = cache.get_or_ask(b"k", lambda: pytest.fail("asked again"))
    assert (first.answer, first.cached) == ("yes", False)
    assert (again.answer, again.cached) == ("yes", True)
    assert cache.find(b"other") is None


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(fresh(seconds=None), id="not reusable"),
        pytest.param(fresh(seconds=0), id="reusable for no time"),
        pytest.param(fresh(seconds=-1), id="reusable for less than that"),
        pytest.param(fresh(seconds=float("nan")), id="reusable for no number"),
        pytest.param(fresh(epoch="f"), id="of another epoch"),
        pytest.param(fresh(epoch=""), id="of no epoch"),
        pytest.param(fresh(revision=6), id="from before the last change"),
        pytest.param(fresh(sent_at=30.0), id="too old"),
        pytest.param(fresh(touched=Touched("", "", frozenset())), id="of no actor"),
        pytest.param(fresh(weight=11), id="larger than there is room"),
    ],
)
def test_an_answer_that_may_not_be_reused_is_not_cached(cache: DecisionCache[str], one: Fresh[str]):
    assert cache.get_or_ask(b"k", lambda: one).answer == "yes"
    assert cache.find(b"k") is None
    assert cache.size == 0


def test_an_answer_ends_with_its_own_time_with_its_age_and_with_the_lease(
    cache: DecisionCache[str], clock: Clock
):
    keep(cache, b"short", fresh(seconds=0.5))
    keep(cache, b"long")
    clock.now = 100.499
    assert cache.find(b"short")
    clock.now = 100.5
    assert cache.find(b"short") is None
    clock.now = 101.0
    assert cache.find(b"long") is None
    assert not cache.live
    lease_until(cache, 200)
    assert cache.find(b"long")
    clock.now = 130.0
    assert cache.find(b"long") is None


def test_overtime_counts_from_the_end_of_the_lease_and_moves_no_other_end(
    cache: DecisionCache[str], clock: Clock
):
    keep(cache, b"short", fresh(seconds=1.5))
    keep(cache, b"long")
    clock.now = 101.499
    assert cache.find(b"short", overtime_seconds=2)
    clock.now = 101.5
    assert cache.find(b"short", overtime_seconds=2) is None
    clock.now = 102.999
    assert cache.find(b"long", overtime_seconds=2)
    clock.now = 103.0
    assert cache.find(b"long", overtime_seconds=2) is None


def test_before_the_first_lease_there_is_no_overtime_either():
    """A machine that has just started has a monotonic clock near zero."""
    cache = DecisionCache[str](clock=lambda: 0.5)
    keep(cache, one=fresh(sent_at=0.5))
    assert cache.find(b"k", overtime_seconds=60) is None
    cache.resync("e", 7)
    keep(cache, one=fresh(sent_at=0.5))
    assert cache.find(b"k", overtime_seconds=60) is None


@pytest.mark.parametrize(
    ("kind", "key", "dropped"),
    [
        (CHANGE_KIND_USER, ["user_1"], "12"),
        (CHANGE_KIND_USER, ["org_1"], ""),
        (CHANGE_KIND_ORGANIZATION, ["org_1"], "1"),
        (CHANGE_KIND_RESOURCE, ["course", "c"], "1"),
        (CHANGE_KIND_RESOURCE, ["school", "s"], "13"),
        (CHANGE_KIND_RESOURCE, ["school", "S"], ""),
        (CHANGE_KIND_RESOURCE, ["user_1", ""], ""),
        (CHANGE_KIND_ROLE, ["TEACHER"], "123"),
        (CHANGE_KIND_PERMISSION, ["course:edit"], "123"),
        (CHANGE_KIND_UNSPECIFIED, [], "123"),
        (99, ["of a newer server"], "123"),
        (CHANGE_KIND_USER, ["user_9", "and more"], "123"),
        (CHANGE_KIND_RESOURCE, ["course"], "123"),
    ],
)
def test_a_change_drops_what_it_touches_and_what_is_not_understood_drops_all(
    cache: DecisionCache[str], kind: ChangeKind.ValueType, key: list[str], dropped: str
):
    keep(cache, b"1")
    keep(cache, b"2", fresh(touched=Touched("user_1", "", frozenset())))
    keep(cache, b"3", fresh(touched=Touched("user_2", "org_2", frozenset({("school", "s")}))))
    cache.changed([ChangedKey(kind=kind, key=key)], 8)
    assert "".join(n for n in "123" if cache.find(n.encode()) is None) == dropped
    assert names_in(cache) == sum({"1": 4, "2": 1, "3": 3}[n] for n in "123" if n not in dropped)


# --- what the stream says, in every order ---------------------------------------------------------


def test_an_answer_from_before_a_change_is_not_cached(cache: DecisionCache[str]):
    cache.changed([ChangedKey(kind=CHANGE_KIND_USER, key=["user_9"])], 8)
    keep(cache, one=fresh(revision=7))
    assert cache.find(b"k") is None
    keep(cache, one=fresh(revision=8))
    assert cache.find(b"k")


def test_an_answer_from_before_a_revision_that_has_half_arrived_is_not_cached(
    cache: DecisionCache[str],
):
    cache.changed([ChangedKey(kind=CHANGE_KIND_USER, key=["user_1"])], 7)  # 8, its first part
    cache.renew(7, "e", 101)
    keep(cache, one=fresh(revision=7))
    assert cache.find(b"k") is None
    assert cache.position == ("e", 7)
    cache.changed([ChangedKey(kind=CHANGE_KIND_USER, key=["user_2"])], 8)
    keep(cache, one=fresh(revision=8))
    assert cache.find(b"k")


def test_a_message_without_changes_prevents_no_caching(cache: DecisionCache[str]):
    cache.changed([], 7)
    keep(cache)
    assert cache.find(b"k")


@pytest.mark.parametrize("end", [100.0, 99.0, 0.0, float("-inf"), float("nan")])
def test_a_lease_that_is_over_ends_the_one_before(cache: DecisionCache[str], end: float):
    keep(cache)
    lease_until(cache, end)
    assert cache.find(b"k") is None
    assert not cache.live


def test_a_lease_for_an_earlier_revision_than_the_last_grants_nothing(cache: DecisionCache[str]):
    keep(cache)
    cache.renew(6, "e", 500)
    assert cache.lease_ends_at == 101
    assert cache.position == ("e", 7)


def test_an_earlier_revision_in_a_change_is_dropped_and_moves_nothing_back(
    cache: DecisionCache[str],
):
    keep(cache)
    cache.changed([ChangedKey(kind=CHANGE_KIND_USER, key=["user_1"])], 3)
    assert cache.find(b"k") is None
    assert cache.position == ("e", 7)


def test_a_lease_of_another_epoch_is_a_new_start_at_its_revision(cache: DecisionCache[str]):
    keep(cache)
    cache.renew(3, "f", 101)
    assert cache.find(b"k") is None
    assert cache.position == ("f", 3)
    keep(cache, one=fresh(epoch="f", revision=3))
    assert cache.find(b"k")


def test_a_lease_of_no_epoch_grants_nothing(cache: DecisionCache[str]):
    keep(cache)
    cache.renew(9, "", 500)
    assert not cache.live
    keep(cache, one=fresh(epoch=""))
    assert cache.size == 0


def test_a_new_start_takes_the_lease_with_it(cache: DecisionCache[str]):
    keep(cache)
    cache.resync("e", 5)
    assert not cache.live
    keep(cache)
    assert cache.find(b"k", overtime_seconds=60) is None
    cache.renew(5, "e", 101)
    assert cache.find(b"k") is None  # and does not bring back what was before


# --- bounds ---------------------------------------------------------------------------------------


def test_entries_and_what_leads_to_them_stay_bounded_under_churn(
    cache: DecisionCache[str], clock: Clock
):
    for n in range(5_000):
        clock.now += 0.01
        lease_until(cache, clock.now + 1)
        touched = Touched(f"user_{n}", f"org_{n}", frozenset({("course", str(n))}))
        one = fresh(sent_at=clock.now, touched=touched, revision=8 + n)
        keep(cache, str(n).encode(), one)
        if n % 3 == 0:
            cache.changed([ChangedKey(kind=CHANGE_KIND_USER, key=[f"user_{n - 1}"])], 8 + n)
    assert cache.size == 10
    assert len(cache._state.by_name) == names_in(cache) == 30
    assert cache.find(b"4999")
    assert cache.find(b"100") is None
    assert cache.in_flight == 0


def test_what_ended_is_let_go_of_without_being_asked_for(cache: DecisionCache[str], clock: Clock):
    keep(cache)
    clock.now = 130
    lease_until(cache, 131)
    assert (cache.size, len(cache._state.by_name), cache.weight) == (0, 0, 0)


def test_a_batch_counts_for_as_many_answers_as_it_has(cache: DecisionCache[str]):
    for n in range(4):
        keep(cache, str(n).encode(), fresh(weight=3))
    assert cache.size == 3
    assert cache.weight == 9


def test_two_answers_to_one_question_leave_one_entry(cache: DecisionCache[str]):
    def ask() -> Fresh[str]:
        cache.keep(b"k", fresh("first"))
        return fresh("second")

    cache.get_or_ask(b"k", ask)
    assert cache.find(b"k") == "second"
    assert (cache.size, names_in(cache), cache.weight) == (1, 4, 1)


# --- which caller asks ----------------------------------------------------------------------------


def test_a_hit_takes_no_lock(cache: DecisionCache[str]):
    keep(cache)
    cache._lock.acquire()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(cache.get_or_ask, b"k", fresh)
        try:
            assert found.result(10).cached
        finally:
            cache._lock.release()


def test_an_error_passes_and_is_not_cached(cache: DecisionCache[str]):
    def fail() -> Fresh[str]:
        raise OSError("gone")

    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            cache.get_or_ask(b"k", fail)
    assert cache.in_flight == 0
    assert cache.get_or_ask(b"k", fresh).cached is False


@pytest.fixture
def real() -> DecisionCache[str]:
    """On the real clock, with a lease that does not end."""
    one = DecisionCache[str]()
    one.renew(7, "e", time.monotonic() + 600)
    return one


class Asking:
    """A question under way, until the test lets the answer come."""

    def __init__(self, answer: Callable[[], Fresh[str]]) -> None:
        self.answer = answer
        self.come = threading.Event()
        self.times = 0

    def __call__(self) -> Fresh[str]:
        self.times += 1
        assert self.come.wait(10)
        return self.answer()


def waiting_for(cache: DecisionCache[str], key: bytes) -> int:
    asking: Any = cache._asking.get(key)
    return len(asking._waiters) if asking else -1


def test_concurrent_threads_with_one_key_ask_once(real: DecisionCache[str]):
    """Fault F20."""
    ask = Asking(lambda: fresh(sent_at=time.monotonic()))
    with ThreadPoolExecutor(50) as pool:
        given = [pool.submit(real.get_or_ask, b"k", ask) for _ in range(50)]
        eventually(lambda: waiting_for(real, b"k") == 49)
        ask.come.set()
        assert sorted(answer.result(10).cached for answer in given) == [False] + 49 * [True]
    assert ask.times == 1


def test_a_thread_that_waited_asks_again_after_a_change(real: DecisionCache[str]):
    """The answer in the air is from before a revocation; who came after it must not get it."""
    ask = Asking(lambda: fresh("allow", sent_at=time.monotonic(), revision=7))
    later = Asking(lambda: fresh("deny", sent_at=time.monotonic(), revision=8))
    later.come.set()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(real.get_or_ask, b"k", ask)
        eventually(lambda: waiting_for(real, b"k") == 0)
        real.changed([ChangedKey(kind=CHANGE_KIND_USER, key=["user_1"])], 8)
        second = pool.submit(real.get_or_ask, b"k", later)
        eventually(lambda: waiting_for(real, b"k") == 1)
        ask.come.set()
        assert first.result(10).answer == "allow"
        assert second.result(10).answer == "deny"


def test_a_thread_that_waited_for_an_error_asks(real: DecisionCache[str]):
    def fail() -> Fresh[str]:
        raise OSError("gone")

    failing = Asking(fail)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(real.get_or_ask, b"k", failing)
        eventually(lambda: waiting_for(real, b"k") == 0)
        second = pool.submit(real.get_or_ask, b"k", fresh)
        eventually(lambda: waiting_for(real, b"k") == 1)
        failing.come.set()
        with pytest.raises(OSError, match="gone"):
            first.result(10)
        assert second.result(10).answer == "yes"


def test_nobody_waits_longer_than_they_say_nor_without_a_lease(real: DecisionCache[str]):
    never = Asking(fresh)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(real.get_or_ask, b"k", never)
        eventually(lambda: waiting_for(real, b"k") == 0)
        assert real.get_or_ask(b"k", fresh, wait_seconds=0.01).answer == "yes"
        real.resync("e", 7)
        assert real.get_or_ask(b"k", fresh).answer == "yes"
        never.come.set()


def test_threads_that_keep_drop_and_find_at_once_leave_it_in_order(real: DecisionCache[str]):
    ends = time.monotonic() + 0.5

    def ask_and_drop(thread: int) -> None:
        n = 0
        while time.monotonic() < ends:
            n += 1
            user = f"user_{n % 7}"
            touched = Touched(user, "", frozenset({("course", str(n % 5))}))
            one = fresh(sent_at=time.monotonic(), revision=10**9, touched=touched)
            answer = real.get_or_ask(b"%d" % (n % 50), lambda given=one: given).answer
            assert answer == "yes"
            if thread == 0 and n % 10 == 0:
                real.changed([ChangedKey(kind=CHANGE_KIND_USER, key=[user])], n)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask_and_drop, range(4)))
    kept = real._state
    assert names_in(real) == 2 * real.size
    assert real.weight == real.size
    assert {key for keys in kept.by_name.values() for key in keys} == set(kept.entries)


# --- keys -----------------------------------------------------------------------------------------

texts = st.sampled_from(["", "a", "a:b", "1", "é", "e\u0301", "\x00"])
values = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, 1, -1, 0.5, 1e300]) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
attributes = st.none() | st.dictionaries(texts, values, max_size=2)
parents = st.none() | st.builds(Resource, texts, texts)
resources = st.none() | st.builds(Resource, texts, texts, attributes, texts, parents)
questions = st.tuples(texts, st.builds(Question, texts, resources, attributes), st.integers(0, 2))


def key_of_question(asked: tuple[str, Question, int]) -> bytes:
    token, question, at_least = asked
    return key_of("Check", check_request(Token(token), question, at_least))


@settings(max_examples=soak.count(300, sample=60), deadline=None)
@given(questions, questions)
def test_two_questions_share_a_key_only_if_they_say_the_same(one, other):
    messages = [check_request(Token(t), question, at) for t, question, at in (one, other)]
    assert (key_of_question(one) == key_of_question(other)) == (messages[0] == messages[1])


def test_questions_that_look_alike_have_keys_of_their_own():
    course = Resource("course", "c")
    alike: list[tuple[str, Question, int]] = [
        ("t", Question("p"), 0),
        ("t", Question("p"), 1),
        ("tp", Question(""), 0),
        ("", Question("tp"), 0),
        ("t", Question("p", course), 0),
        ("t", Question("p", Resource("cours", "ec")), 0),
        ("t", Question("p", Resource("course", "c", organization_id="c")), 0),
        ("t", Question("p", Resource("course", "c", parent=course)), 0),
        ("t", Question("p", Resource("course", "c", attributes={})), 0),
        *(
            ("t", Question("p", Resource("course", "c", attributes={"a": value})), 0)
            for value in (None, False, 0, "", [], {}, True, 1, "1", [1], [[1]], {"a": 1}, "True")
        ),
        ("t", Question("p", course, {}), 0),
        ("t", Question("p", course, {"a": 1}), 0),
        ("t", Question("p", course, {"a": {"b": 1}, "c": 2}), 0),
        ("t", Question("p", course, {"a": {"b": 1, "c": 2}}), 0),
    ]
    assert len({key_of_question(question) for question in alike}) == len(alike)


def test_the_order_of_attributes_makes_no_difference_and_the_method_does():
    one, other = (
        check_request(Token("t"), Question("p", context=context), 0)
        for context in ({"a": 1, "b": 2.0}, {"b": 2, "a": 1})
    )
    assert key_of("Check", one) == key_of("Check", other)
    assert key_of("Check", one) != key_of("BatchCheck", one)
    assert key_of("a", CheckRequest()) != key_of("", CheckRequest(actor_token="a"))
    batch = batch_request(Token("t"), [Question("p")], 0)
    assert key_of("BatchCheck", batch) != key_of("BatchCheck", one)
