"""Streams that take long or fail: what a watcher receives, and what a client sees."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from pdpapi.v1.change_service_pb2 import WatchRequest, WatchResponse

from pdp.database.engine import open_engine
from pdp.errors import PdpError
from pdp.facts import Replica, Store
from pdp.model import User
from pdp.settings import CallerSettings
from pdp.wire import Application, Watchers
from pdp.wire.callers import Callers, Proof
from pdp.wire.methods import StreamMethod, Subscription
from pdp.wire.pipeline import PROTO, Pipeline, Refusal, Stream
from pdp.wire.services import changes
from tests.kit.facts.writing import write
from tests.kit.waiting import eventually
from tests.kit.wire.errors import error_info, rpc_error
from tests.kit.wire.listening import listening

KEY = "pdp_a-key-of-a-caller"
SOMEBODY = Proof((f"Bearer {KEY}".encode(),), None)
STRANGER = Proof((), None)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    engine = open_engine(sqlite_url)
    yield Store(engine)
    engine.dispose()


@pytest.fixture
def replica(store: Store) -> Iterator[Replica]:
    replica = Replica(store, poll_seconds=0.01, staleness_seconds_max=60)
    replica.start()
    eventually(replica.ready)
    yield replica
    replica.stop()


@pytest.fixture
def watchers(replica: Replica) -> Watchers:
    return Watchers(replica)


def opened(
    watchers: Watchers, request: WatchRequest, proof: Proof = SOMEBODY, *may: str
) -> Stream | Refusal:
    """The result of a request of a caller with this capability."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    caller = CallerSettings.model_validate(
        {"name": "somebody", "api_key_sha256": digest, "may": may or ("decide",)}
    )
    pipeline = Pipeline(Callers([caller]), lambda *_: None, rpcs_max=8, streams_share=512)
    [method] = watchers.methods()
    try:
        admitted = pipeline.admit(method, proof)
    except PdpError as error:
        return pipeline.refuse(method, error)
    return pipeline.open(method, request.SerializeToString(), admitted, PROTO)


def taken(stream: Stream) -> list[WatchResponse] | None:
    said = stream.take()
    assert not isinstance(said, Refusal)
    return None if said is None else [WatchResponse.FromString(message) for message in said]


def test_a_stream_ends_in_time_though_there_is_always_something_to_say(
    store: Store, watchers: Watchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise what clocks run apart by would add up; and who comes back has missed nothing."""
    monkeypatch.setattr(changes, "LIFE_SECONDS_MAX", 0.5)
    request = WatchRequest()
    keys: list[str] = []
    for _ in range(2):
        stream = opened(watchers, request)
        assert isinstance(stream, Stream)
        began = time.monotonic()
        while (messages := taken(stream)) is not None:
            assert time.monotonic() < began + 5
            for message in messages:
                assert not message.HasField("start_over")
                if message.HasField("heartbeat"):
                    request.epoch, revision = message.heartbeat.epoch, message.heartbeat.revision
                    request.after_revision = max(request.after_revision, revision)
                if message.HasField("changed"):
                    request.after_revision = message.changed.revision
                    keys += [change.key[0] for change in message.changed.changes]
            write(store, User(f"user_{time.monotonic_ns()}"))
        stream.close("OK")
        assert time.monotonic() >= began + 0.4
    with store.read() as reader:
        written = [change.key[0] for step in reader.changes(0).values() for change in step]
    assert keys == written[: len(keys)]
    assert len(keys) > 10


def test_a_caller_that_may_not_decide_may_not_watch_and_takes_no_place(watchers: Watchers) -> None:
    for proof, may, code in (
        (STRANGER, (), grpc.StatusCode.UNAUTHENTICATED),
        (SOMEBODY, ("administer", "audit", "report"), grpc.StatusCode.PERMISSION_DENIED),
    ):
        refused = opened(watchers, WatchRequest(), proof, *may)
        assert isinstance(refused, Refusal)
        assert refused.code is code
    assert watchers.count == 0


def test_a_place_that_is_left_is_free_again(
    watchers: Watchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "WATCHERS_MAX", 2)
    first, second, third = (opened(watchers, WatchRequest()) for _ in range(3))
    assert isinstance(first, Stream)
    assert isinstance(second, Stream)
    assert isinstance(third, Refusal)
    assert third.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    # Ended from two sides at once, as when a client leaves while its stream ends.
    first.close("OK")
    first.close("CANCELLED")
    assert watchers.count == 1
    assert isinstance(opened(watchers, WatchRequest()), Stream)
    assert isinstance(opened(watchers, WatchRequest()), Refusal)


class Counting:
    """A subscription that always has something to say, or a bug."""

    def __init__(self, method: "Method", *, bug: bool) -> None:
        self.due_at = 0.0
        self._method = method
        self._bug = bug

    def take(self) -> Sequence[bytes]:
        assert not self._bug
        return [b"x" * 100]

    def close(self) -> None:
        self._method.closed.append(self)


class Method:
    """The streams that were opened and closed."""

    def __init__(self) -> None:
        self.opened: list[Counting] = []
        self.closed: list[Counting] = []

    def open(self, request: WatchRequest, _: object) -> Subscription:
        self.opened.append(Counting(self, bug=request.epoch == "bug"))
        return self.opened[-1]


@contextmanager
def served(method: Method) -> Iterator[str]:
    """The address of a listener in this process."""
    listen = lambda _: None  # noqa: E731
    stream = StreamMethod("s.S", "Watch", "decide", WatchRequest, method.open, listen, 1_000)
    application = Application(Callers(()), [stream], lambda *_: None, rpcs_max=8, streams_share=512)
    with listening(application) as port:
        yield f"127.0.0.1:{port}"


def call(channel: grpc.Channel, request: WatchRequest) -> Any:
    return channel.unary_stream("/s.S/Watch")(request.SerializeToString(), timeout=20)


def test_a_bug_ends_its_stream_as_such_and_no_other() -> None:
    method = Method()
    with served(method) as target, grpc.insecure_channel(target) as channel:
        healthy = call(channel, WatchRequest())
        next(healthy)
        error = rpc_error(lambda: next(call(channel, WatchRequest(epoch="bug"))))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "assert" not in str(error.details())
        for _ in range(100):
            next(healthy)
        malformed = channel.unary_stream("/s.S/Watch")(b"\xff", timeout=20)
        error = rpc_error(lambda: next(malformed))
        assert error_info(error).reason == "REQUEST_INVALID"
    assert len(method.opened) == 2


def test_a_client_that_opens_and_leaves_in_a_hurry_leaves_nothing_behind() -> None:
    """Left before, while and after it is opened; by many clients, so that none of them is taken for
    a rapid reset (CVE-2023-44487)."""
    method = Method()
    with served(method) as target, ExitStack() as stack:
        alone = (("grpc.use_local_subchannel_pool", 1),)
        channel, *clients = [
            stack.enter_context(grpc.insecure_channel(target, alone)) for _ in range(31)
        ]

        def open_and_leave(number: int) -> None:
            one = call(clients[number % len(clients)], WatchRequest())
            if number % 3:
                time.sleep(number % 7 / 1_000)
            if number % 3 == 2:
                next(one)
            one.cancel()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(open_and_leave, range(600)))
        stays = call(channel, WatchRequest())
        next(stays)
        eventually(lambda: len(method.closed) == len(method.opened) - 1)
        next(stays)
    eventually(lambda: len(method.closed) == len(method.opened))
    assert len(method.opened) > 100
    assert len(set(map(id, method.closed))) == len(method.closed)
