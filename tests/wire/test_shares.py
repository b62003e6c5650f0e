"""No caller takes what the others need."""

import threading

import pytest

from pdp.errors import Overloaded, ShareExceeded
from pdp.wire.shares import RATE_SECONDS, Places, Rate


def test_a_caller_at_its_share_is_refused_and_others_are_not() -> None:
    places = Places("streams_share", each=2, total=3)
    first, _ = places.take("greedy"), places.take("greedy")
    with pytest.raises(ShareExceeded) as refused:
        places.take("greedy")
    assert refused.value.metadata == {"limit": "streams_share", "maximum": "2"}
    places.take("other")
    with pytest.raises(Overloaded, match="streams_max is reached: 3"):
        places.take("third")
    first()
    places.take("third")


def test_a_place_is_given_back_once() -> None:
    places = Places("streams_share", each=2)
    give_back, _ = places.take("one"), places.take("one")
    give_back()
    give_back()
    assert places.taken == 1
    places.take("one")
    with pytest.raises(ShareExceeded):
        places.take("one")


def test_threads_that_take_at_once_get_no_more_than_the_share() -> None:
    places = Places("streams_share", each=50)
    taken: list[object] = []

    def take() -> None:
        for _ in range(50):
            try:
                taken.append(places.take("one"))
            except ShareExceeded:
                return

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == places.taken == 50


def test_a_caller_beyond_its_share_is_served_after_the_announced_wait() -> None:
    now = 100.0
    rate = Rate("reports_share", 1_000, lambda: now)
    for _ in range(10):
        rate.spend("greedy", 1_000)
    with pytest.raises(ShareExceeded) as refused:
        rate.spend("greedy", 1)
    rate.spend("other", 1_000)
    now += refused.value.retry_after_ms / 1_000
    rate.spend("greedy", 1_000)
    with pytest.raises(ShareExceeded) as refused:
        rate.spend("greedy", 1)
    assert 900 < refused.value.retry_after_ms <= 1_001


def test_a_retry_too_early_does_not_make_the_wait_longer() -> None:
    now = 0.0
    rate = Rate("reports_share", 10, lambda: now)
    rate.spend("one", 10 * int(RATE_SECONDS) + 5)
    waits = []
    for _ in range(100):
        with pytest.raises(ShareExceeded) as refused:
            rate.spend("one", 1_000)
        waits.append(refused.value.retry_after_ms)
    assert waits == [501] * 100


def test_over_a_long_time_a_caller_has_its_rate_and_no_more() -> None:
    now = 0.0
    rate = Rate("reports_share", 100, lambda: now)
    spent = 0
    for step in range(6_000):
        now = step / 10
        try:
            rate.spend("one", 37)
        except ShareExceeded:
            continue
        spent += 37
    assert 600 * 100 <= spent <= (600 + RATE_SECONDS) * 100 + 37
