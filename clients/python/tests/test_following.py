"""A follower of the change stream, and servers that misbehave."""

import logging
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from pdp_client import following
from pdp_client.cache import DecisionCache, Fresh, Touched
from pdp_client.following import Follower
from pdpapi.v1.change_service_pb2 import (
    CHANGE_KIND_ROLE,
    CHANGE_KIND_USER,
    WatchRequest,
    WatchResponse,
)
from pdpapi.v1.change_service_pb2_grpc import ChangeServiceStub

from clients.python.tests.kit.answerer import Answerer, Stream, beat, changed, start_over
from tests.kit import soak
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually

NOT_REACHED = ErrorInfo(reason="REVISION_NOT_REACHED", domain="pdp")
KEY = "a-key-that-nobody-may-read"


@pytest.fixture
def cache() -> DecisionCache[str]:
    return DecisionCache()


@pytest.fixture
def lost() -> list[grpc.StatusCode]:
    return []


@pytest.fixture
def follower(
    teller: Answerer, cache: DecisionCache[str], lost: list[grpc.StatusCode]
) -> Iterator[Follower]:
    with grpc.insecure_channel(teller.address) as channel:
        watch = ChangeServiceStub(channel).Watch
        metadata = (("authorization", f"Bearer {KEY}"),)
        one = Follower(lambda asked: watch(asked, metadata=metadata), cache, on_lost=lost.append)
        one.start()
        yield one
        one.stop()


def stream(teller: Answerer, number: int) -> Stream:
    """The stream of this number, once it is open; 0 is the first."""
    eventually(lambda: len(teller.streams) > number, what=f"stream {number}")
    return teller.streams[number]


def keep(cache: DecisionCache[str], revision: int = 7) -> None:
    """Something about `user_1`, under key `k`."""
    touched = Touched("user_1", "", frozenset())
    fresh = Fresh("yes", time.monotonic(), "e", revision, 60.0, touched)
    cache.get_or_ask(b"k", lambda: fresh)
    assert cache.size == 1


def filled(teller: Answerer, cache: DecisionCache[str], number: int = 0) -> Stream:
    """The stream of this number, with a lease, and something kept."""
    one = stream(teller, number)
    one.lease()
    eventually(lambda: cache.live)
    keep(cache)
    return one


@pytest.mark.usefixtures("follower")
class TestFollowing:
    """How a follower handles messages."""

    def test_it_starts_at_the_current_revision_and_receives_changes(
        self, teller: Answerer, cache: DecisionCache[str]
    ):
        one = filled(teller, cache)
        assert one.request == WatchRequest()
        one.tell(changed(8, CHANGE_KIND_USER, "user_2"))
        eventually(lambda: cache.position == ("e", 8))
        assert cache.find(b"k")
        one.tell(changed(9, CHANGE_KIND_USER, "user_1"))
        eventually(lambda: cache.position == ("e", 9))
        assert cache.find(b"k") is None

    @pytest.mark.parametrize("ended", ["ends", "fails"])
    def test_a_short_cut_drops_nothing(
        self, teller: Answerer, cache: DecisionCache[str], ended: str, lost: list[grpc.StatusCode]
    ):
        one = filled(teller, cache)
        if ended == "ends":
            one.ends()
        else:
            one.fails(grpc.StatusCode.UNAVAILABLE)
        two = stream(teller, 1)
        assert two.request == WatchRequest(epoch="e", after_revision=7)
        two.lease()
        eventually(lambda: cache.live)
        assert cache.find(b"k") == "yes"
        assert lost == ([] if ended == "ends" else [grpc.StatusCode.UNAVAILABLE])

    @pytest.mark.parametrize(
        "message",
        [
            pytest.param(beat(lease=3_600), id="a lease of an hour"),
            pytest.param(beat(elapsed=3_600), id="a stream that has lasted an hour"),
            pytest.param(beat(lease=3_600, elapsed=3_600), id="both"),
        ],
    )
    def test_no_message_gives_a_lease_of_more_than_a_second(
        self, teller: Answerer, cache: DecisionCache[str], message: WatchResponse
    ):
        stream(teller, 0).tell(message)
        eventually(lambda: cache.live)
        assert cache.lease_ends_at <= time.monotonic() + 1

    def test_a_lease_counts_from_before_the_stream_was_asked_for(
        self, teller: Answerer, cache: DecisionCache[str]
    ):
        one = stream(teller, 0)
        eventually(lambda: time.monotonic() > one.began + 0.3)
        one.tell(beat())  # held up for 0.3 s: it says that nothing has elapsed
        eventually(lambda: cache.position == ("e", 7))
        eventually(lambda: cache.lease_ends_at > 0)
        assert cache.lease_ends_at < one.began + 1

    @pytest.mark.parametrize("lease", [0.0, -5.0])
    def test_a_lease_of_nothing_is_none(
        self, teller: Answerer, cache: DecisionCache[str], lease: float
    ):
        one = filled(teller, cache)
        one.tell(beat(lease=lease))
        eventually(lambda: not cache.live, seconds=0.5)

    @pytest.mark.parametrize(
        "message",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(b"\x7a\x02hi", id="a field that is not known"),
            pytest.param(start_over("f", 3).SerializeToString(), id="resync"),
            pytest.param(
                changed(8, CHANGE_KIND_ROLE, "R").SerializeToString(), id="a kind that means all"
            ),
            pytest.param(changed(8, 99, "x").SerializeToString(), id="a kind that is not known"),
            pytest.param(b"\xff\xff\xff", id="no message at all"),
        ],
    )
    def test_an_unknown_message_or_a_resync_drops_everything_and_it_continues(
        self, teller: Answerer, cache: DecisionCache[str], message: bytes
    ):
        one = filled(teller, cache)
        one.tell(message)
        if message == b"\xff\xff\xff":  # that ends the stream; nothing was missed
            one = stream(teller, 1)
            assert one.request == WatchRequest(epoch="e", after_revision=7)
            one.tell(start_over("f", 3))
        eventually(lambda: cache.size == 0)
        one.lease(9)
        eventually(lambda: cache.live)
        keep(cache, 9)

    def test_after_a_history_that_is_no_more_it_begins_from_now_on(
        self, teller: Answerer, cache: DecisionCache[str]
    ):
        one = filled(teller, cache)
        one.fails(grpc.StatusCode.UNAVAILABLE, NOT_REACHED)
        assert stream(teller, 1).request == WatchRequest()
        assert cache.size == 0
        assert not cache.live

    def test_a_stream_that_is_silent_is_cut(
        self, teller: Answerer, cache: DecisionCache[str], lost: list[grpc.StatusCode]
    ):
        """The other end is gone, and no packet says so."""
        filled(teller, cache)
        watch = Stopwatch()
        two = stream(teller, 1)
        assert watch.elapsed > 0.9
        assert watch.seconds < 3
        assert lost == [grpc.StatusCode.CANCELLED]
        assert not cache.live
        assert two.request == WatchRequest(epoch="e", after_revision=7)
        two.lease()
        eventually(lambda: cache.live)
        assert cache.find(b"k") == "yes"

    def test_a_stream_on_which_every_word_comes_too_late_is_given_up(
        self, teller: Answerer, lost: list[grpc.StatusCode]
    ):
        """Its request was held up on the way, and so its leases would be over for minutes."""
        one = stream(teller, 0)
        while len(teller.streams) < 2 and time.monotonic() < one.began + 5:
            one.tell(beat(elapsed=time.monotonic() - one.began - 0.8))
            time.sleep(0.05)
        assert len(teller.streams) == 2
        assert lost == [grpc.StatusCode.CANCELLED]

    @pytest.mark.soak
    def test_a_storm_of_resyncs_caches_nothing_and_passes(
        self, teller: Answerer, cache: DecisionCache[str]
    ):
        one = stream(teller, 0)
        for n in range(soak.count(2_000, sample=400)):
            one.tell(start_over("e" * (n % 3), n), beat(n, "e" * (n % 3)))
        one.tell(start_over("e", 7))

        def is_over() -> bool:
            # A lease that waits behind the storm for too long is none.
            teller.streams[-1].lease()
            return cache.position == ("e", 7) and cache.live

        eventually(is_over)
        keep(cache)


def test_a_refused_follower_retries_rarely_and_logs_it_once_without_its_key(
    teller: Answerer,
    follower: Follower,
    lost: list[grpc.StatusCode],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    assert following.REFUSED_RETRY_SECONDS >= 10
    monkeypatch.setattr(following, "REFUSED_RETRY_SECONDS", 0.05)
    refusals = [
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    ]
    with caplog.at_level(logging.DEBUG, "pdp_client"):
        for n, code in enumerate(refusals):
            stream(teller, n).fails(code)
        stream(teller, 3)
    assert lost == refusals
    assert [record.message for record in caplog.records] == [
        "the change stream is refused (UNIMPLEMENTED): no answer is cached"
    ]
    assert KEY not in caplog.text


def test_one_whose_streams_end_at_once_does_not_ask_in_a_loop(teller: Answerer, follower: Follower):
    until = time.monotonic() + 1.5
    answered = 0
    while time.monotonic() < until:
        for stream in teller.streams[answered:]:
            answered += 1
            stream.lease()
            stream.ends()
        time.sleep(0.001)
    assert 2 <= len(teller.streams) <= 40


FOLLOWING = {"pdp-follow", "pdp-cut_silence"}
"""The threads of a follower."""


@pytest.mark.parametrize("silent", [True, False])
def test_stopping_takes_a_moment_and_drops_the_cache(
    teller: Answerer,
    follower: Follower,
    cache: DecisionCache[str],
    caplog: pytest.LogCaptureFixture,
    silent: bool,
):
    one = filled(teller, cache)
    if not silent:
        one.fails(grpc.StatusCode.PERMISSION_DENIED)
        eventually(lambda: "the change stream is refused" in caplog.text)
    threads = [thread for thread in threading.enumerate() if thread.name in FOLLOWING]
    assert {thread.name for thread in threads} == FOLLOWING
    watch = Stopwatch()
    follower.stop()
    assert watch.seconds < 2
    assert cache.size == 0
    assert not any(thread.is_alive() for thread in threads)


def test_what_cannot_be_opened_is_tried_again_and_named_without_its_text(
    cache: DecisionCache[str], teller: Answerer, caplog: pytest.LogCaptureFixture
):
    with grpc.insecure_channel(teller.address) as channel:
        tries = iter([ValueError(KEY)])

        def open_watch(request: WatchRequest) -> object:
            for error in tries:
                raise error
            return ChangeServiceStub(channel).Watch(request)

        follower = Follower(open_watch, cache)
        follower.start()
        stream(teller, 0).lease()
        eventually(lambda: cache.live)
        follower.stop()
    assert "ValueError" in caplog.text
    assert KEY not in caplog.text
