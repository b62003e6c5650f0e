"""Where clients ask: a replica, a sidecar, a guard, a caching guard."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import grpc
from pdp_client import Guard, GuardError, Resource
from pdp_client.values import AnswerSource
from pdpapi.v1.core_pb2 import (
    ANSWER_SOURCE_UNSPECIFIED,
    DECISION_ALLOW,
    DECISION_DENY,
    DecisionReason,
)
from pdpapi.v1.core_pb2 import Resource as WireResource
from pdpapi.v1.decision_service_pb2 import (
    BatchCheckRequest,
    CheckItem,
    CheckRequest,
    CheckResponse,
)
from pdpapi.v1.decision_service_pb2_grpc import PolicyDecisionServiceStub

from tests.history.checker import Outcome

DEADLINE_SECONDS = 1.5
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
)
_OUTCOMES = {DECISION_ALLOW: Outcome.ALLOW, DECISION_DENY: Outcome.DENY}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: may the bearer of the token do this with a document?"""

    token: str
    permission: str
    document: str
    at_least_revision: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer."""

    outcome: Outcome
    revision: int = 0
    cached: bool = False
    said: str = ""


Ask = Callable[[Asked], Answer]


@dataclass(frozen=True, slots=True)
class Place:
    """What a process of clients knows of a place. `kind`: "wire" (a replica or a sidecar),
    "batch" (the same, by BatchCheck), "guard", "caching guard"."""

    name: str
    kind: str
    target: str
    share: int = 1
    """How often it is asked, in proportion to the others."""


def open_place(place: Place) -> Ask:
    """How to ask there. Lasts as long as the process."""
    if place.kind == "wire":
        return _on_the_wire(place.target)
    if place.kind == "batch":
        return _in_a_batch(place.target)
    return _by_guard(place.target, cache=place.kind == "caching guard")


def channel_to(target: str) -> grpc.Channel:
    """A channel that is soon back when its peer is. Several addresses are used in turn."""
    options = CHANNEL_OPTIONS
    if "," in target:
        balanced = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
        options = (*options, ("grpc.service_config", balanced))
    return grpc.insecure_channel(target, options)


def _on_the_wire(target: str) -> Ask:
    stub = PolicyDecisionServiceStub(channel_to(target))

    def ask(asked: Asked) -> CheckResponse:
        request = CheckRequest(
            actor_token=asked.token,
            permission=asked.permission,
            resource=_resource(asked),
            at_least_revision=asked.at_least_revision,
        )
        return stub.Check(request, timeout=DEADLINE_SECONDS)

    return lambda asked: _answer(lambda: ask(asked))


def _in_a_batch(target: str) -> Ask:
    """Asked together with another question, which may touch it and is not looked at."""
    stub = PolicyDecisionServiceStub(channel_to(target))

    def ask(asked: Asked) -> CheckResponse:
        permissions = (asked.permission, "doc:read")
        request = BatchCheckRequest(
            actor_token=asked.token,
            items=[
                CheckItem(permission=permission, resource=_resource(asked))
                for permission in permissions
            ],
            at_least_revision=asked.at_least_revision,
        )
        return stub.BatchCheck(request, timeout=DEADLINE_SECONDS).results[0]

    return lambda asked: _answer(lambda: ask(asked))


def _resource(asked: Asked) -> WireResource:
    return WireResource(type="doc", id=asked.document)


def _answer(ask: Callable[[], CheckResponse]) -> Answer:
    try:
        answer = ask()
    except grpc.RpcError as error:
        call = cast(grpc.Call, error)
        return Answer(Outcome.NO_ANSWER, said=f"{call.code().name}: {call.details()}")
    return Answer(
        _OUTCOMES.get(answer.decision, Outcome.NO_ANSWER),
        answer.revision,
        answer.source != ANSWER_SOURCE_UNSPECIFIED,
        DecisionReason.Name(answer.reason).removeprefix("DECISION_REASON_"),
    )


def _by_guard(target: str, *, cache: bool) -> Ask:
    guard = Guard(target, deadline_seconds=DEADLINE_SECONDS, cache=cache)

    def ask(asked: Asked) -> Answer:
        try:
            decision = guard.check(
                asked.token,
                asked.permission,
                Resource("doc", asked.document),
                at_least_revision=asked.at_least_revision,
            )
        except GuardError as error:
            return Answer(Outcome.NO_ANSWER, said=str(error))
        outcome = Outcome.ALLOW if decision.allowed else Outcome.DENY
        cached = decision.source is not AnswerSource.DECIDED
        return Answer(outcome, decision.revision, cached, decision.reason)

    return ask
