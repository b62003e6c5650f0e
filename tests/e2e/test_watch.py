"""Watchers of a real server: what they receive, how long that holds, and how a stream ends."""

import itertools
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from pdpapi.v1.administration_service_pb2 import RevokeSessionRequest
from pdpapi.v1.change_service_pb2 import ChangeKind, Heartbeat, WatchRequest, WatchResponse
from pdpapi.v1.change_service_pb2_grpc import ChangeServiceStub

from pdp.database.engine import open_engine
from pdp.facts import Change, Store
from pdp.facts import ChangeKind as Kind
from tests.kit.facts.outage import Outage
from tests.kit.proxy import Proxy
from tests.kit.school import POLICY, ask, reason_of
from tests.kit.server import ServerProcess, Stubs, running_server
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually
from tests.kit.wire.errors import error_info, rpc_error

WATCH = "/pdpapi.v1.ChangeService/Watch"
WATCHERS_MAX = 1_024
NO_PROBES = (("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1))
"""A window of 64 KiB that does not grow, and a connection of its own."""

Key = tuple[str, ...]


@dataclass
class Watching:
    """A stream that is read as it comes, by a thread of its own."""

    channel: grpc.Channel
    request: WatchRequest = field(default_factory=WatchRequest)

    def __post_init__(self) -> None:
        self.received: list[tuple[float, WatchResponse]] = []
        """The messages, with their times of arrival (time.monotonic())."""
        self.error: grpc.RpcError | None = None
        self.ended_at: float | None = None
        self.t0 = time.monotonic()
        # Its channel may have lost its connection in an earlier test, and waits to connect again.
        self.call = ChangeServiceStub(self.channel).Watch(self.request, wait_for_ready=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for message in self.call:
                self.received.append((time.monotonic(), message))
        except grpc.RpcError as error:
            self.error = error
        self.ended_at = time.monotonic()

    def __enter__(self) -> "Watching":
        return self

    def __exit__(self, *_: object) -> None:
        self.call.cancel()

    @property
    def messages(self) -> list[WatchResponse]:
        return [message for _, message in self.received]

    @property
    def heartbeats(self) -> list[Heartbeat]:
        return [message.heartbeat for message in self.messages if message.HasField("heartbeat")]

    @property
    def keys(self) -> list[Key]:
        """Kind and key of all changes, in the order of telling."""
        return [
            (ChangeKind.Name(change.kind).removeprefix("CHANGE_KIND_"), *change.key)
            for message in self.messages
            for change in message.changed.changes
        ]

    def leases(self) -> list[tuple[float, float]]:
        """When each heartbeat arrived, and when its lease ends, by this process' clock."""
        return [
            (at, self.t0 + seconds(one.heartbeat.elapsed) + seconds(one.heartbeat.lease))
            for at, one in self.received
            if one.HasField("heartbeat")
        ]

    def lease(self) -> Heartbeat:
        """Waits for the first one."""
        eventually(lambda: self.heartbeats or self.ended_at is not None, what="a heartbeat")
        assert self.heartbeats, f"the stream ended before: {self.error}"
        return self.heartbeats[0]

    def end(self) -> grpc.RpcError:
        """Waits for the end, which is an error."""
        eventually(lambda: self.ended_at is not None, what="the stream ends")
        assert self.error is not None
        return self.error


def seconds(duration: Any) -> float:
    return float(duration.seconds + duration.nanos / 1e9)


def note(server: ServerProcess, *changes: Change) -> int:
    """Has these touched, by another process than the server; the revision."""
    engine = open_engine(server.environment["PDP_DATABASE_URL"])
    with Store(engine).write() as transaction:
        for change in changes:
            transaction.touch(change, "session", (), None, None)
    engine.dispose()
    return transaction.revision


def many(count: int = 1_000) -> list[Change]:
    return [Change(Kind.USER, (f"user_{number:060}",)) for number in range(count)]


def open_watches(server: ServerProcess) -> int:
    """The gauge `pdp_watchers`."""
    [line] = [s for s in server.http("/metrics")[1].splitlines() if s.startswith("pdp_watchers ")]
    return int(float(line.split()[1]))


def threads(server: ServerProcess) -> int:
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in server.pids())


def revoke(stubs: Stubs) -> None:
    """A write that touches user_sam."""
    session_id = f"sess_{time.monotonic_ns()}"
    request = RevokeSessionRequest(session_id=session_id, user_id="user_sam")
    stubs.administration.RevokeSession(request, timeout=10)


def code_and_reason(error: grpc.RpcError) -> tuple[str, str]:
    return error.code().name, error_info(error).reason


@pytest.fixture
def watching(stubs: Stubs) -> Iterator[Watching]:
    with Watching(stubs.channel) as one:
        yield one


def test_a_watcher_receives_exactly_the_touched_keys_at_once(
    server: ServerProcess, watching: Watching
) -> None:
    """By another process than ours, so that it is found by polling, every 200 ms."""
    first = watching.lease()
    changes = [
        Change(Kind.USER, ("user_1",)),
        Change(Kind.RESOURCE, ("course", "a/b ü")),
        Change(Kind.ROLE, ("R",)),
    ]
    begun_at = time.monotonic()
    revision = note(server, *changes)
    eventually(lambda: watching.heartbeats[-1].revision == revision)
    assert watching.keys[-3:] == [(change.kind.name, *change.key) for change in changes]
    [*_, (at, last)] = [
        (at, one.changed) for at, one in watching.received if one.HasField("changed")
    ]
    assert last.revision == revision
    assert at - begun_at < 2
    assert {heartbeat.epoch for heartbeat in watching.heartbeats} == {first.epoch}


def test_a_local_write_reaches_watchers_within_milliseconds(
    stubs: Stubs, watching: Watching
) -> None:
    """No poll, no pause and no other stream delays the message about a commit."""
    watching.lease()
    waited = []
    for number in range(6):
        begun_at = time.monotonic()
        revoke(stubs)
        eventually(lambda number=number: len(watching.keys) > number)
        waited.append(watching.received[-1][0] - begun_at)
    assert set(watching.keys) == {("USER", "user_sam")}
    assert min(waited) < 0.1


def test_a_lease_is_renewed_in_time_and_never_longer_than_a_second(watching: Watching) -> None:
    eventually(lambda: len(watching.heartbeats) > 3)
    leases = watching.leases()
    assert all(ends_at <= at + 1 for at, ends_at in leases)
    # Each lasts beyond the next: without news, a cache serves without a gap.
    assert all(ends_at > at for (_, ends_at), (at, _) in itertools.pairwise(leases))
    # The allowance for two clocks that run apart is subtracted.
    for heartbeat in watching.heartbeats:
        assert seconds(heartbeat.lease) <= 1 - seconds(heartbeat.elapsed) / 1_001


def test_a_message_that_comes_late_gives_no_lease_beyond_its_time(server: ServerProcess) -> None:
    """F24, F26. Held up for however long, it says what was true when it was sent."""
    proxy = Proxy(("127.0.0.1", server.port))
    proxy.latency_seconds = 0.2
    try:
        with (
            grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel,
            Watching(channel) as watching,
        ):
            eventually(lambda: len(watching.heartbeats) > 1)
            proxy.blackhole()
            held_up_at = time.monotonic()
            eventually(lambda: time.monotonic() > held_up_at + 1.2)
            count = len(watching.heartbeats)
            # For more than a second no message arrived, and every lease has ended.
            assert all(ends_at < time.monotonic() for _, ends_at in watching.leases())
            proxy.forward()
            eventually(lambda: len(watching.heartbeats) > count + 4)
            leases = watching.leases()
    finally:
        proxy.close()
    # The server cannot have begun before the request had come half the way.
    assert all(ends_at <= at + 1 - 2 * 0.2 for at, ends_at in leases)
    assert leases[count][1] < leases[count][0]


def test_a_watcher_that_comes_back_receives_what_it_missed(
    server: ServerProcess, stubs: Stubs
) -> None:
    with Watching(stubs.channel) as before:
        known = before.lease()
    revision = note(server, Change(Kind.USER, ("user_away",)))
    request = WatchRequest(epoch=known.epoch, after_revision=known.revision)
    with Watching(stubs.channel, request) as after:
        eventually(lambda: after.lease() and after.heartbeats[-1].revision == revision)
        assert after.keys == [("USER", "user_away")]


def test_a_watcher_from_another_history_has_to_resync(stubs: Stubs) -> None:
    with Watching(stubs.channel, WatchRequest(epoch="another", after_revision=1)) as watching:
        heartbeat = watching.lease()
        [start_over] = [
            message.start_over for message in watching.messages if message.HasField("start_over")
        ]
        assert watching.messages[0].HasField("start_over")
        assert (start_over.epoch, start_over.revision) == (heartbeat.epoch, heartbeat.revision)


def test_a_revision_of_the_future_is_not_waited_for_longer_than_a_second(
    stubs: Stubs, watching: Watching
) -> None:
    """Another process may be ahead for a moment; a database that was restored stays behind."""
    known = watching.lease()
    request = WatchRequest(epoch=known.epoch, after_revision=known.revision + 1_000_000)
    with Watching(stubs.channel, request) as ahead:
        assert code_and_reason(ahead.end()) == ("UNAVAILABLE", "REVISION_NOT_REACHED")
        assert ahead.received == []
        assert ahead.ended_at is not None
        assert 1 < ahead.ended_at - ahead.t0 < 3


@pytest.mark.parametrize(
    "request_",
    [WatchRequest(after_revision=1), WatchRequest(epoch="e" * 257)],
    ids=["revision without epoch", "long epoch"],
)
def test_a_malformed_request_opens_nothing(
    server: ServerProcess, stubs: Stubs, request_: WatchRequest
) -> None:
    with Watching(stubs.channel, request_) as watching:
        assert code_and_reason(watching.end()) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    eventually(lambda: open_watches(server) == 0)


def test_a_request_that_is_too_long_is_refused(stubs: Stubs) -> None:
    with Watching(stubs.channel, WatchRequest(epoch="e" * 2_000)) as watching:
        assert code_and_reason(watching.end()) == ("RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED")


def test_a_watcher_that_does_not_read_is_cut_off_and_delays_no_other(
    server: ServerProcess, watching: Watching
) -> None:
    """Messages to them wait on their side; the server buffers next to nothing."""
    watching.lease()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", NO_PROBES) as channel:
        stub = ChangeServiceStub(channel)
        calls = [stub.Watch(WatchRequest()) for _ in range(20)]
        eventually(lambda: open_watches(server) == 21)
        written = 0

        def are_cut_off() -> bool:
            nonlocal written
            note(server, *many())
            written += 1
            return open_watches(server) == 1

        eventually(are_cut_off, seconds=20, what="who does not read is cut off")
        for call in calls:
            read = 0

            def read_on(call: Any = call) -> None:
                nonlocal read
                for message in call:
                    read += message.ByteSize()

            assert code_and_reason(rpc_error(read_on)) == ("RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED")
            assert read < 2_000_000
    eventually(
        lambda: len(watching.keys) == written * 1_000,
        what="it receives everything",
    )
    assert watching.ended_at is None


def test_watchers_take_no_thread_each_and_leave_checks_alone(tmp_path: Path) -> None:
    # One caller may hold them all, so that the bound of the process is what is met.
    with running_server(tmp_path, POLICY, STREAMS_SHARE="2000") as (server, stubs):
        _fill_with_watchers(server, stubs)


def _fill_with_watchers(server: ServerProcess, stubs: Stubs) -> None:
    address = f"127.0.0.1:{server.port}"
    reason_of(ask(stubs, "user_ivan", "course:view"))
    eventually(lambda: open_watches(server) == 0)
    before = threads(server)
    channels = [grpc.insecure_channel(address, NO_PROBES) for _ in range(5)]
    try:
        calls = [
            ChangeServiceStub(channels[number % 5]).Watch(WatchRequest())
            for number in range(WATCHERS_MAX)
        ]
        for call in calls:
            assert next(call).HasField("heartbeat")
        assert open_watches(server) == WATCHERS_MAX
        with Watching(stubs.channel) as one_more:
            assert code_and_reason(one_more.end()) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        revoke(stubs)
        watch = Stopwatch()
        for _ in range(30):
            assert reason_of(ask(stubs, "user_ivan", "course:view")) == "ALLOWED_BY_RULE"
        assert watch.seconds < 3
        for call in calls:
            assert any(message.HasField("changed") for message in itertools.islice(call, 50))
        assert threads(server) <= before + 8
    finally:
        for channel in channels:
            channel.close()
    eventually(lambda: open_watches(server) == 0, what="who has left is forgotten")


def test_calls_whose_message_does_not_come_keep_nobody_from_watching(
    server: ServerProcess, stubs: Stubs
) -> None:
    """Headers alone cost nothing to send, and each such call has a thread wait for the rest."""
    never: queue.SimpleQueue[WatchRequest] = queue.SimpleQueue()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", NO_PROBES) as channel:
        hold = channel.stream_stream(WATCH, WatchRequest.SerializeToString)
        held = [hold(iter(never.get, None)) for _ in range(6)]
        try:
            eventually(lambda: all(call.is_active() for call in held))
            with Watching(stubs.channel) as one:
                one.lease()
        finally:
            for _ in held:
                never.put(WatchRequest())


@pytest.mark.parametrize("way", ["cancels", "closes"])
def test_a_watcher_that_leaves_in_the_middle_of_a_message_is_forgotten(
    server: ServerProcess, way: str
) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", NO_PROBES) as channel:
        calls = [ChangeServiceStub(channel).Watch(WatchRequest()) for _ in range(20)]
        eventually(lambda: open_watches(server) == 20)
        for _ in range(8):
            note(server, *many())
        if way == "cancels":
            for call in calls:
                call.cancel()
            eventually(lambda: open_watches(server) == 0)
    eventually(lambda: open_watches(server) == 0)


def test_a_process_announces_its_end_and_the_next_one_demands_a_resync(tmp_path: Path) -> None:
    with running_server(tmp_path, POLICY) as (server, stubs):
        many_watching = [Watching(stubs.channel) for _ in range(20)]
        with grpc.insecure_channel(f"127.0.0.1:{server.port}", NO_PROBES) as channel:
            # One of them does not read: nobody waits for it.
            ChangeServiceStub(channel).Watch(WatchRequest())
            known = [watching.lease() for watching in many_watching].pop()
            for _ in range(8):
                note(server, *many())
            watch = Stopwatch()
            assert server.stop() == 0
            assert watch.seconds < 5
        for watching in many_watching:
            assert code_and_reason(watching.end()) == ("UNAVAILABLE", "SHUTTING_DOWN")
        assert "Traceback" not in server.log()
        server.start()
        request = WatchRequest(epoch=known.epoch, after_revision=known.revision)
        with server.channel() as channel, Watching(channel, request) as after:
            assert after.lease().revision == known.revision + 8
            assert after.messages[0].start_over.revision == known.revision + 8


def test_cut_off_from_its_database_a_replica_gives_no_lease_beyond_its_bound(
    tmp_path: Path, postgresql_url: str
) -> None:
    """F25. The stream ends with the answers, and goes on where it was with them."""
    bound = 0.8
    with running_server(
        tmp_path, DATABASE_URL=postgresql_url, STALENESS_SECONDS_MAX=str(bound)
    ) as (_, stubs):
        with Watching(stubs.channel) as watching:
            known = watching.lease()
            outage = Outage(postgresql_url)
            outage.begin()
            gone_at = time.monotonic()
            error = watching.end()
        assert code_and_reason(error) == ("UNAVAILABLE", "FACTS_STALE")
        assert all(seconds(heartbeat.lease) <= bound for heartbeat in watching.heartbeats)
        assert all(ends_at <= gone_at + bound for _, ends_at in watching.leases())
        outage.end()
        request = WatchRequest(epoch=known.epoch, after_revision=known.revision)

        def goes_on() -> bool:
            with Watching(stubs.channel, request) as again:
                eventually(lambda: again.received or again.ended_at)
                return bool(again.heartbeats) and not again.messages[0].HasField("start_over")

        eventually(goes_on, what="leases are granted again")
