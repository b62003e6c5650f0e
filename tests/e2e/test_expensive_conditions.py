"""The most expensive conditions that are accepted, on a real server: others hardly notice."""

import json
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from pdpapi.v1.audit_service_pb2 import ListDecisionsRequest
from pdpapi.v1.core_pb2 import DecisionReason, Resource
from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, CheckItem, CheckRequest
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.server import ServerProcess, Stubs, running_server, stubs_on, token_of
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually

WORDS, TEXT = 100, 5_300
"""Just within what an evaluation may cost: some 4 ms."""
POLICY = json.dumps(
    {
        "permissions": ["course:search", "course:view"],
        "roles": {
            "READER": {
                "allow": [
                    "course:view",
                    {
                        "permission": "course:search",
                        "id": "search",
                        "when": "context.words.exists(w, resource.attributes.text.contains(w))",
                    },
                ]
            }
        },
        "grants": [{"role": "READER", "user": "user_1"}],
        "users": [{"id": "user_1"}],
        "organizations": [{"id": "org_1"}],
        "memberships": [{"organization": "org_1", "user": "user_1", "role": "org:member"}],
        "resources": [
            {
                "type": "course",
                "id": "1",
                "organization": "org_1",
                "attributes": {"text": "a" * TEXT},
            }
        ],
    }
)
RESOURCE = Resource(type="course", id="1")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Stubs]]:
    with running_server(tmp_path_factory.mktemp("search"), POLICY) as server:
        yield server


def token() -> str:
    return token_of("user_1", organization_id="org_1")


def batch(items: int, words: int = WORDS) -> BatchCheckRequest:
    context = Struct()
    context.update({"words": ["a" * 8 + "b"] * words})
    item = CheckItem(permission="course:search", resource=RESOURCE, context=context)
    return BatchCheckRequest(actor_token=token(), items=[item] * items)


def metric(server: ServerProcess, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(server.http("/metrics")[1])
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_small_questions_beside_expensive_batches_are_answered_soon(
    searched: tuple[ServerProcess, Stubs],
) -> None:
    """They do not wait for a batch to end; how much sooner they are is for `make bench` to say."""
    server, stubs = searched
    stop = threading.Event()
    reasons: set[int] = set()

    def ask_batches() -> None:
        with server.channel() as channel:
            while not stop.is_set():
                answer = stubs_on(channel).decision.BatchCheck(batch(60), timeout=60)
                reasons.update(result.reason for result in answer.results)

    small = CheckRequest(actor_token=token(), permission="course:view", resource=RESOURCE)
    stubs.decision.Check(small, timeout=10)
    alone = Stopwatch()
    stubs.decision.BatchCheck(batch(60), timeout=60)
    bound = alone.seconds
    callers = [threading.Thread(target=ask_batches) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        # On a busy machine a round may be lost to others; what is held up is so in each.
        rounds: list[float] = []
        while len(rounds) < 4 and min(rounds, default=bound + 1) > bound:
            took = []
            for _ in range(40):
                watch = Stopwatch()
                stubs.decision.Check(small, timeout=10)
                took.append(watch.seconds)
            rounds.append(sorted(took)[-2])
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert reasons == {DecisionReason.DECISION_REASON_CONDITION_NOT_MET}, "they were evaluated"
    assert min(rounds) <= bound, (rounds, bound)


def test_a_batch_ends_with_its_deadline_and_nothing_of_it_is_answered(
    searched: tuple[ServerProcess, Stubs],
) -> None:
    server, stubs = searched

    def given_up() -> float:
        """The server's deadline, or the client's reset of the stream: whichever comes first."""
        return sum(
            metric(server, "pdp_rpc_seconds_count", method="BatchCheck", code=code)
            for code in ("DEADLINE_EXCEEDED", "CANCELLED")
        )

    before = given_up()
    decided = metric(server, "pdp_decisions_total")
    with pytest.raises(grpc.RpcError) as caught:
        stubs.decision.BatchCheck(batch(900), timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # All of it would take another 4 s of work and as many of pauses.
    eventually(lambda: given_up() == before + 1, seconds=2)
    assert metric(server, "pdp_decisions_total") == decided, "no part of it was answered"


def test_a_cancelled_batch_ends_and_leaves_no_record(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with running_server(tmp_path_factory.mktemp("cancelled"), POLICY) as (server, stubs):
        call = stubs.decision.BatchCheck.future(batch(900), timeout=60)
        time.sleep(0.3)
        assert call.cancel()
        eventually(
            lambda: metric(server, "pdp_rpc_seconds_count", code="CANCELLED") == 1,
            seconds=2,
        )
        listed = stubs.audit.ListDecisions(ListDecisionsRequest(), timeout=10)
        assert not listed.decisions


def test_what_is_too_expensive_is_answered_at_once_and_counted_for_its_rule(
    searched: tuple[ServerProcess, Stubs],
) -> None:
    server, stubs = searched
    watch = Stopwatch()
    answer = stubs.decision.BatchCheck(batch(60, words=900), timeout=60)
    assert watch.seconds < 2, "evaluated, they would take 60 times 36 ms"
    reasons = {result.reason for result in answer.results}
    assert reasons == {DecisionReason.DECISION_REASON_CONDITION_FAILED}
    assert metric(server, "pdp_conditions_too_expensive_total", rule="search") == 60
