"""A sidecar with all kinds of upstream answers, over time, and with a failing disk."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from pdp_client.cache import DecisionCache
from pdpapi.v1.change_service_pb2 import CHANGE_KIND_RESOURCE, CHANGE_KIND_USER, ChangedKey
from pdpapi.v1.core_pb2 import (
    ANSWER_SOURCE_CACHED,
    ANSWER_SOURCE_STAYED_OPEN,
    ANSWER_SOURCE_UNSPECIFIED,
    DECISION_DENY,
    Resource,
    ResourceRef,
)
from pdpapi.v1.decision_service_pb2 import (
    BatchCheckRequest,
    BatchCheckResponse,
    CheckItem,
    CheckRequest,
    CheckResponse,
)
from structlog.testing import capture_logs

from clients.python.tests.kit.answerer import ACTOR, Answerer, allowed, denied, serve
from pdp.audit import Recorder
from pdp.clock import wall_clock
from pdp.errors import AuditUnavailable, LimitExceeded, UpstreamRefused, UpstreamUnavailable
from pdp.limits import BATCH_ITEMS_MAX
from pdp.settings import SidecarSettings
from pdp.sidecar.answering import Answering
from pdp.sidecar.exchanges import CHECK
from pdp.sidecar.upstreams import Credentials, NoAnswer, Upstreams
from pdp.wire.callers import ANONYMOUS
from pdp.wire.statuses import PassedOn
from tests.kit.waiting import run

REQUEST = CheckRequest(
    actor_token="t", permission="course:view", resource=Resource(type="course", id="algebra")
)
KEPT: dict[str, object] = {"reusable_for": Duration(seconds=20), "epoch": "e", "revision": 7}


def info(reason: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain="pdpapi.v1")


class World:
    """A sidecar without its processes: a cache that the test leads, and a recorder on a disk."""

    def __init__(self, directory: Path, *upstreams: Answerer) -> None:
        stay_open = [{"permission": "course:*", "seconds": 30}]
        addresses = [upstream.address for upstream in upstreams]
        settings = SidecarSettings.load(None, upstreams=addresses, stay_open=stay_open)
        self.cache: DecisionCache[Any] = DecisionCache()
        self.recorder = Recorder(directory, "sidecar")
        self.upstreams = Upstreams(addresses, Credentials(), deadline_seconds=10)
        self.answering = Answering(
            settings, self.cache, self.upstreams, self.recorder, clock=wall_clock
        )
        self.check, self.batch = (self._ask(method.answer) for method in self.answering.methods())
        self.recorder.start()
        self.lease(60)

    def _ask(self, answer: Callable[..., Message]) -> Callable[[Message], Any]:
        return lambda request=REQUEST: run(answer(request, ANONYMOUS))

    def lease(self, seconds: float, revision: int = 7) -> None:
        self.cache.renew(revision, "e", time.monotonic() + seconds)

    def close(self) -> None:
        self.recorder.stop()
        self.upstreams.close()


@pytest.fixture
def answerers() -> Iterator[tuple[Answerer, Answerer]]:
    both = Answerer(), Answerer()
    servers = [serve(answerer, "127.0.0.1:0") for answerer in both]
    yield both
    for server in servers:
        server.stop(None).wait()


@pytest.fixture
def world(answerers: tuple[Answerer, Answerer], tmp_path: Path) -> Iterator[World]:
    answerers[0].says(allowed(**KEPT))
    made = World(tmp_path, answerers[0])
    yield made
    made.close()


@pytest.fixture
def upstream(answerers: tuple[Answerer, Answerer]) -> Answerer:
    return answerers[0]


@pytest.mark.parametrize(
    "said",
    [
        b"\xff",
        CheckResponse(),
        allowed(actor=None),
        allowed(decision=9),
        allowed(denial_kind=2),
        denied(denial_kind=0),
        allowed(source=9),
    ],
)
def test_an_invalid_answer_is_unavailable_and_not_cached(
    world: World, upstream: Answerer, said: Message | bytes
) -> None:
    if isinstance(said, CheckResponse):
        said.MergeFrom(CheckResponse(**KEPT))
    upstream.says(said, allowed(**KEPT))
    with pytest.raises(UpstreamUnavailable):
        world.check(REQUEST)
    assert world.check(REQUEST).source == ANSWER_SOURCE_UNSPECIFIED


def test_a_batch_with_another_number_of_answers_is_unavailable(
    world: World, upstream: Answerer
) -> None:
    upstream.says(BatchCheckResponse(results=[allowed(actor=None)], actor=ACTOR))
    items = [CheckItem(permission="course:view")] * 2
    with pytest.raises(UpstreamUnavailable):
        world.batch(BatchCheckRequest(actor_token="t", items=items))


@pytest.mark.parametrize(
    "changes",
    [
        {"reusable_for": None},
        {"epoch": "another"},
        {"epoch": ""},
        {"revision": 6},
        {"actor": None},
        {"source": ANSWER_SOURCE_CACHED},
        {"source": ANSWER_SOURCE_STAYED_OPEN},
        {"reason": 999},
    ],
)
def test_an_answer_that_may_not_be_reused_is_not_reused(
    world: World, upstream: Answerer, changes: dict[str, Any]
) -> None:
    """Among them: answers of unknown age, and denials that could not be logged a second time."""
    upstream.says(denied(**{**KEPT, **changes}))
    for _ in range(2):
        world.check(REQUEST)
    assert len(upstream.requests) == 2
    assert not world.cache.size


def test_a_change_above_the_resource_drops_the_answer_and_one_elsewhere_does_not(
    world: World, upstream: Answerer
) -> None:
    upstream.says(allowed(**KEPT, ancestors=[ResourceRef(type="school", id="one")]))
    world.check(REQUEST)
    world.cache.changed([ChangedKey(kind=CHANGE_KIND_RESOURCE, key=["school", "two"])], 8)
    assert world.check(REQUEST).source == ANSWER_SOURCE_CACHED
    world.cache.changed([ChangedKey(kind=CHANGE_KIND_RESOURCE, key=["school", "one"])], 9)
    assert world.check(REQUEST).source == ANSWER_SOURCE_UNSPECIFIED


def test_a_batch_is_dropped_by_a_change_of_any_of_its_resources(
    world: World, upstream: Answerer
) -> None:
    result = allowed(**KEPT)
    result.ClearField("actor")
    upstream.says(BatchCheckResponse(results=[result] * 2, actor=ACTOR))
    items = [
        CheckItem(permission="course:view", resource=Resource(type="course", id=course))
        for course in ("algebra", "biology")
    ]
    request = BatchCheckRequest(actor_token="t", items=items)
    world.batch(request)
    assert world.batch(request).results[1].source == ANSWER_SOURCE_CACHED
    world.cache.changed([ChangedKey(kind=CHANGE_KIND_RESOURCE, key=["course", "biology"])], 8)
    assert world.batch(request).results[1].source == ANSWER_SOURCE_UNSPECIFIED


def test_a_denial_that_cannot_be_logged_does_not_come_from_the_cache(
    world: World, upstream: Answerer
) -> None:
    upstream.says(denied(**KEPT))
    world.check(REQUEST)
    world.recorder.stop()
    with pytest.raises(AuditUnavailable):
        world.check(REQUEST)


def test_a_batch_whose_lease_ended_while_it_was_logged_is_asked_again(
    world: World, upstream: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allows beside the denial would be from the past."""
    yes, no = allowed(**KEPT), denied(**KEPT)
    yes.ClearField("actor")
    no.ClearField("actor")
    upstream.says(BatchCheckResponse(results=[yes, no], actor=ACTOR))
    items = [CheckItem(permission="course:view"), CheckItem(permission="course:edit")]
    request = BatchCheckRequest(actor_token="t", items=items)
    world.batch(request)
    assert world.batch(request).results[0].source == ANSWER_SOURCE_CACHED
    record = world.recorder.record

    async def slow(records: Any) -> Any:
        ids = await record(records)
        world.cache.changed([ChangedKey(kind=CHANGE_KIND_USER, key=[ACTOR.user_id])], 8)
        return ids

    monkeypatch.setattr(world.recorder, "record", slow)
    assert world.batch(request).results[0].source == ANSWER_SOURCE_UNSPECIFIED
    assert len(upstream.requests) == 2


def test_a_batch_of_more_questions_than_are_answered_is_not_worth_a_question(
    world: World, upstream: Answerer
) -> None:
    """Two million empty ones fit into a message, and each of them would cost something."""
    items = [CheckItem()] * (BATCH_ITEMS_MAX + 1)
    with pytest.raises(LimitExceeded):
        world.batch(BatchCheckRequest(actor_token="t", items=items))
    assert not upstream.requests


@pytest.mark.parametrize(
    ("code", "reason", "stays_open"),
    [
        (grpc.StatusCode.UNAVAILABLE, "", True),
        (grpc.StatusCode.UNAVAILABLE, "FACTS_STALE", True),
        (grpc.StatusCode.CANCELLED, "", True),  # how a server that ends leaves what it accepted
        (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", True),
        # The result of a denial that could not be recorded.
        (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE", False),
        (grpc.StatusCode.UNAVAILABLE, "REVISION_NOT_REACHED", False),
        (grpc.StatusCode.UNAVAILABLE, "OF_THE_FUTURE", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", False),
        # The result of a denial whose caller has used up its share.
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "SHARE_EXCEEDED", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", False),
        (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID", False),
        (grpc.StatusCode.INTERNAL, "INTERNAL", False),
        (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED", False),
        (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED", False),
        (grpc.StatusCode.UNIMPLEMENTED, "", False),
    ],
)
def test_a_fail_open_window_needs_an_upstream_that_did_not_decide(
    world: World, upstream: Answerer, code: grpc.StatusCode, reason: str, stays_open: bool
) -> None:
    world.check(REQUEST)
    world.lease(-1)
    upstream.fails(code, "scripted", *([info(reason)] if reason else []))
    if stays_open:
        answer = world.check(REQUEST)
        assert answer.source == ANSWER_SOURCE_STAYED_OPEN
        assert world.recorder.counts().recorded == 1
        world.recorder.stop()
        with pytest.raises(AuditUnavailable):
            world.check(REQUEST)
        return
    with pytest.raises((PassedOn, UpstreamRefused, UpstreamUnavailable)) as caught:
        world.check(REQUEST)
    if code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}:
        assert isinstance(caught.value, UpstreamRefused)
    elif isinstance(caught.value, PassedOn):
        assert caught.value.code is code
    else:
        assert code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "since",
    [
        denied(**KEPT),
        denied(actor=None),
        # How a denial that could not be recorded looks, and a sidecar that may not ask any more.
        (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE"),
        (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED"),
    ],
    ids=["denied", "token refused", "denied, not recorded", "sidecar refused"],
)
def test_a_later_denial_by_upstream_ends_a_fail_open_window(
    world: World, upstream: Answerer, since: CheckResponse | tuple[grpc.StatusCode, str]
) -> None:
    """The stream is lost first, upstream later: what it said in between is the newer word."""
    world.check(REQUEST)
    world.lease(-1)
    if isinstance(since, CheckResponse):
        upstream.says(since)
        assert world.check(REQUEST).decision == DECISION_DENY
    else:
        upstream.fails(since[0], "scripted", info(since[1]))
        with pytest.raises((PassedOn, UpstreamRefused)):
            world.check(REQUEST)
    upstream.fails(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(UpstreamUnavailable):
        world.check(REQUEST)


def test_a_cached_denial_stays_a_denial_when_upstream_is_unavailable(
    world: World, upstream: Answerer
) -> None:
    upstream.says(denied(**KEPT))
    world.check(REQUEST)
    world.lease(-1)
    upstream.fails(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(UpstreamUnavailable):
        world.check(REQUEST)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "FACTS_STALE"),
        (grpc.StatusCode.UNAVAILABLE, ""),
        (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
        (grpc.StatusCode.UNIMPLEMENTED, ""),
    ],
)
def test_another_upstream_is_asked_where_the_first_has_no_answer(
    answerers: tuple[Answerer, Answerer], tmp_path: Path, code: grpc.StatusCode, reason: str
) -> None:
    world = World(tmp_path, *answerers)
    answerers[0].fails(code, "scripted", *([info(reason)] if reason else []))
    answerers[1].says(allowed(**KEPT))
    try:
        assert world.check(REQUEST).decision_id
    finally:
        world.close()


def test_one_that_hangs_takes_its_share_of_the_deadline_and_is_left(
    answerers: tuple[Answerer, Answerer],
) -> None:
    """A server whose answers wait for something, though its stream goes on."""
    hangs, answers = answerers
    come = threading.Event()

    def wait(_request: Message, _context: grpc.ServicerContext) -> Message:
        come.wait(10)
        return allowed()

    hangs.answer = wait
    addresses = [answerer.address for answerer in answerers]
    upstreams = Upstreams(addresses, Credentials(), deadline_seconds=2)
    try:
        for _ in range(3):
            assert upstreams.ask(CHECK.path, REQUEST, CheckResponse).message.decision_id
    finally:
        come.set()
        upstreams.close()
    assert (len(hangs.requests), len(answers.requests)) == (1, 3)


def test_a_question_that_is_wrong_is_asked_once(
    answerers: tuple[Answerer, Answerer], tmp_path: Path
) -> None:
    world = World(tmp_path, *answerers)
    answerers[0].fails(grpc.StatusCode.INVALID_ARGUMENT, "no", info("REQUEST_INVALID"))
    try:
        with pytest.raises(PassedOn):
            world.check(REQUEST)
    finally:
        world.close()
    assert not answerers[1].requests


def test_an_unreachable_upstream_is_logged_once_and_not_with_each_question() -> None:
    """A thousand questions a second would be as many lines, just when somebody reads the log."""
    away = ["127.0.0.1:1", "127.0.0.1:2"]
    upstreams = Upstreams(away, Credentials(), deadline_seconds=10)
    with capture_logs() as logs:
        for _ in range(5):
            with pytest.raises(NoAnswer):
                upstreams.ask(CHECK.path, REQUEST, CheckResponse)
    assert [line["upstream"] for line in logs] == away
    upstreams.close()
