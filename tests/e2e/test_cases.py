"""The policy cases in data, through a real server: token, wire, SQL, decision and audit log."""

import time
from pathlib import Path

import grpc
import pytest
from pdpapi.v1 import audit_service_pb2, core_pb2
from pdpapi.v1.administration_service_pb2 import RevokeSessionRequest
from pdpapi.v1.decision_service_pb2 import CheckRequest, CheckResponse

from pdp.audit import DecisionRecord
from pdp.document import Asked
from pdp.model import Actor, Decision, Effect, Question, Reason, Resource, ResourceRef
from pdp.wire.convert.attributes import struct_of
from tests.kit.decision.cases import Answer, Case, load_cases, run_case
from tests.kit.server import Stubs, running_server, token_of


@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case.name)
def test_a_case_is_answered_and_recorded_as_it_says(case: Case, tmp_path: Path) -> None:
    with running_server(tmp_path, case.policy_text, AUDIT_ALLOWS="true") as (_, stubs):
        revision = 0
        for revoked_session in case.file.revoked_sessions:
            revoked = stubs.administration.RevokeSession(
                RevokeSessionRequest(
                    session_id=revoked_session.session_id, user_id=revoked_session.user_id
                )
            )
            revision = revoked.revision

        def ask(_: Case, asked: Asked) -> Answer:
            return ask_wire(stubs, asked, revision)

        run_case(case, ask)


def ask_wire(stubs: Stubs, asked: Asked, revision: int) -> Answer:
    request = CheckRequest(
        actor_token=token_for(asked),
        permission=asked.question.permission,
        resource=resource_message(asked.question),
        context=struct_of(asked.question.context),
        at_least_revision=revision,
    )
    # Twice: once from SQL and a token that was never seen, once from memory.
    # OpenFGA CVE-2026-24851 and CVE-2026-41131: what differs with a cache is a bug of the cache.
    cold, response = (stubs.decision.Check(request, timeout=10) for _ in range(2))
    assert without_moment(cold) == without_moment(response)
    record = recorded(stubs, response.decision_id)
    decision = Decision(
        Effect.ALLOW if response.decision == core_pb2.DECISION_ALLOW else Effect.DENY,
        reason_of(response.reason),
        response.rule_id or None,
        response.grant_id or None,
        record.resource_organization_id,
        response.reusable_until.seconds if response.HasField("reusable_until") else None,
    )
    assert record.reason is decision.reason
    # The server of these tests records allows too; by default it records denials only.
    return Answer(decision, [record] if decision.effect is Effect.DENY else [])


def without_moment(response: CheckResponse) -> CheckResponse:
    copy = CheckResponse()
    copy.CopyFrom(response)
    copy.ClearField("decision_id")
    copy.ClearField("reusable_for")  # counted from when it was decided
    return copy


def token_for(asked: Asked) -> str:
    actor = asked.actor
    claims = dict(asked.claims)
    if actor.impersonator_id is not None:
        claims["act"] = {"sub": actor.impersonator_id}
    claims["fva"] = [1, -1 if asked.second_factor_minutes is None else asked.second_factor_minutes]
    return token_of(
        actor.user_id,
        session_id=actor.session_id,
        organization_id=actor.organization_id,
        claims=claims,
    )


def resource_message(question: Question) -> core_pb2.Resource | None:
    asked: Resource | None = question.resource
    if asked is None:
        return None
    parent = asked.parent
    return core_pb2.Resource(
        type=asked.type,
        id=asked.id,
        organization_id=asked.organization_id or "",
        parent=parent and core_pb2.ResourceRef(type=parent.type, id=parent.id),
        attributes=struct_of(asked.attributes),
    )


def recorded(stubs: Stubs, decision_id: str) -> DecisionRecord:
    request = audit_service_pb2.GetDecisionRequest(decision_id=decision_id)
    deadline = time.monotonic() + 10
    while True:
        try:
            record = stubs.audit.GetDecision(request, timeout=10).decision
        except grpc.RpcError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return record_of(record)


def record_of(message: audit_service_pb2.DecisionRecord) -> DecisionRecord:
    actor = message.actor
    ref = message.resource
    return DecisionRecord(
        decision_id=message.decision_id,
        decided_at=message.decided_at.seconds,
        effect=Effect.ALLOW if message.decision == core_pb2.DECISION_ALLOW else Effect.DENY,
        reason=reason_of(message.reason),
        permission=message.permission,
        caller=message.caller,
        revision=message.revision,
        token_fingerprint=message.token_fingerprint,
        actor=Actor(
            actor.user_id,
            actor.session_id,
            actor.organization_id or None,
            actor.impersonator_id or None,
        )
        if message.HasField("actor")
        else None,
        token_id=message.token_id or None,
        resource=ResourceRef(ref.type, ref.id) if message.HasField("resource") else None,
        resource_organization_id=message.resource_organization_id or None,
        rule_id=message.rule_id or None,
        grant_id=message.grant_id or None,
    )


def reason_of(value: int) -> Reason:
    return Reason[core_pb2.DecisionReason.Name(value).removeprefix("DECISION_REASON_")]
