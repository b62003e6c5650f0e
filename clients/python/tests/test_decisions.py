"""How the guard handles answers."""

import pickle
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pdp_client import (
    Actor,
    Decision,
    DenialKind,
    Denied,
    Effect,
    Forbidden,
    Guard,
    Question,
    Resource,
    Token,
    Unauthenticated,
)
from pdpapi.v1 import core_pb2
from pdpapi.v1.decision_service_pb2 import BatchCheckResponse

from clients.python.tests.kit.answerer import ACTOR, Answerer, allowed, denied

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyXzEifQ.c2lnbmF0dXJl"


def test_an_allow_is_returned_with_all_that_the_pdp_said(answerer: Answerer, guard: Guard):
    answerer.says(allowed(reusable_until=Timestamp(seconds=1_800_000_000)))
    decision = guard.check(TOKEN, "course:edit")
    assert decision == Decision(
        effect=Effect.ALLOW,
        reason="ALLOWED_BY_RULE",
        message="A rule allows it.",
        denial_kind=None,
        actor=Actor("user_1", "sess_1", organization_id="org_1"),
        decision_id="0198c0de-0000-7000-8000-000000000001",
        rule_id="rule-1",
        grant_id="grant-1",
        revision=7,
        reusable_until=datetime.fromtimestamp(1_800_000_000, UTC),
    )
    assert decision.allowed is True


def test_a_denial_is_returned_by_check(answerer: Answerer, guard: Guard):
    answerer.says(denied())
    decision = guard.check(TOKEN, "course:edit")
    assert decision.allowed is False
    assert decision.denial_kind is DenialKind.FORBIDDEN
    assert (decision.rule_id, decision.grant_id, decision.reusable_until) == (None, None, None)


@pytest.mark.parametrize("answer", [allowed(), denied()])
def test_neither_a_decision_nor_its_effect_has_a_truth_value(
    answerer: Answerer, guard: Guard, answer
):
    answerer.says(answer)
    decision = guard.check(TOKEN, "course:edit")
    with pytest.raises(TypeError, match="no truth value"):
        bool(decision)
    with pytest.raises(TypeError, match="no truth value"):
        bool(decision.effect)


def test_require_returns_the_verified_actor(answerer: Answerer, guard: Guard):
    answerer.says(allowed(actor=core_pb2.Actor(user_id="user_9", impersonator_id="user_0")))
    actor = guard.require(TOKEN, "course:edit")
    assert actor == Actor("user_9", "", organization_id=None, impersonator_id="user_0")


def test_require_raises_forbidden_as_403(answerer: Answerer, guard: Guard):
    answerer.says(denied())
    with pytest.raises(Forbidden) as raised:
        guard.require(TOKEN, "course:edit")
    assert raised.value.http_status == 403
    assert raised.value.decision.actor == Actor("user_1", "sess_1", organization_id="org_1")
    assert str(raised.value) == (
        "PERMISSION_NOT_GRANTED: No role of the user allows it. "
        "(decision 0198c0de-0000-7000-8000-000000000002)"
    )


def test_require_raises_unauthenticated_as_401(answerer: Answerer, guard: Guard):
    answerer.says(
        denied(
            denial_kind=core_pb2.DENIAL_KIND_UNAUTHENTICATED,
            reason=core_pb2.DECISION_REASON_TOKEN_EXPIRED,
            actor=None,
        )
    )
    with pytest.raises(Unauthenticated) as raised:
        guard.require(TOKEN, "course:edit")
    assert isinstance(raised.value, Denied)
    assert raised.value.http_status == 401
    assert raised.value.decision.reason == "TOKEN_EXPIRED"
    assert raised.value.decision.actor is None


def test_a_denial_survives_pickling(answerer: Answerer, guard: Guard):
    answerer.says(denied())
    with pytest.raises(Forbidden) as raised:
        guard.require(TOKEN, "course:edit")
    again = pickle.loads(pickle.dumps(raised.value))
    assert (type(again), again.decision) == (Forbidden, raised.value.decision)


def test_a_denial_for_a_reason_of_a_newer_pdp_is_still_a_denial(answerer: Answerer, guard: Guard):
    answerer.says(denied(reason=77))
    with pytest.raises(Forbidden) as raised:
        guard.require(TOKEN, "course:edit")
    assert raised.value.decision.reason == "77"


def test_the_whole_question_reaches_the_pdp(answerer: Answerer, guard: Guard):
    course = Resource(
        "course",
        "c 1/ü",
        attributes={"owner": "user_1"},
        organization_id="org_1",
        parent=Resource("school", "s1", attributes={"not": "sent"}),
    )
    guard.check(Token(TOKEN), "course:edit", course, {"ip": "10.0.0.1"}, at_least_revision=42)
    (request,) = answerer.requests
    assert request.actor_token == TOKEN
    assert request.permission == "course:edit"
    assert (request.resource.type, request.resource.id) == ("course", "c 1/ü")
    assert request.resource.organization_id == "org_1"
    assert request.resource.parent == core_pb2.ResourceRef(type="school", id="s1")
    assert dict(request.resource.attributes) == {"owner": "user_1"}
    assert dict(request.context) == {"ip": "10.0.0.1"}
    assert request.at_least_revision == 42


def test_a_question_without_a_resource_sends_none(answerer: Answerer, guard: Guard):
    guard.check(TOKEN, "course:list")
    (request,) = answerer.requests
    assert not request.HasField("resource")
    assert not request.HasField("context")


def test_a_batch_is_answered_in_order_by_one_call(answerer: Answerer, guard: Guard):
    answerer.says(
        BatchCheckResponse(
            results=[allowed(actor=None), denied(actor=None), allowed(actor=None)], actor=ACTOR
        )
    )
    questions = [
        Question("course:edit", Resource("course", "1")),
        Question("course:edit", Resource("course", "2"), {"reason": "x"}),
        Question("course:list"),
    ]
    decisions = guard.batch(TOKEN, questions, at_least_revision=3)
    assert [decision.effect for decision in decisions] == [Effect.ALLOW, Effect.DENY, Effect.ALLOW]
    assert {decision.actor for decision in decisions} == {
        Actor("user_1", "sess_1", organization_id="org_1")
    }
    (request,) = answerer.requests
    assert [(item.permission, item.resource.id) for item in request.items] == [
        ("course:edit", "1"),
        ("course:edit", "2"),
        ("course:list", ""),
    ]
    assert dict(request.items[1].context) == {"reason": "x"}
    assert request.at_least_revision == 3


@pytest.mark.parametrize("count", [0, 1_001])
def test_a_batch_of_none_or_more_than_1000_questions_is_refused_unsent(
    answerer: Answerer, guard: Guard, count: int
):
    with pytest.raises(ValueError, match=f"1 to 1000 questions, not {count}"):
        guard.batch(TOKEN, [Question("course:list")] * count)
    assert answerer.requests == []


def test_a_batch_of_1000_questions_is_sent(answerer: Answerer, guard: Guard):
    answerer.says(BatchCheckResponse(results=[allowed(actor=None)] * 1_000, actor=ACTOR))
    decisions = guard.batch(TOKEN, [Question("course:list")] * 1_000)
    assert len(decisions) == 1_000


@pytest.mark.parametrize("unsendable", ["\ud800", "a.b.\udfff"])
def test_a_token_that_is_not_unicode_is_sent_as_the_empty_one_to_be_denied_on_record(
    answerer: Answerer, guard: Guard, unsendable: str
):
    guard.check(unsendable, "course:edit")
    assert [request.actor_token for request in answerer.requests] == [""]


def test_a_token_that_is_no_str_is_refused_unsent(answerer: Answerer, guard: Guard):
    for value in (None, b"token", 5):
        with pytest.raises(TypeError, match="a token is a str"):
            guard.check(value, "course:edit")
    assert answerer.requests == []
