"""Check and BatchCheck through a real server process."""

import time

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pdpapi.v1.audit_service_pb2 import GetDecisionRequest
from pdpapi.v1.core_pb2 import Decision, DenialKind, Resource
from pdpapi.v1.decision_service_pb2 import (
    BatchCheckRequest,
    CheckItem,
    CheckRequest,
)

from tests.kit.school import ALGEBRA, ORGANIZATION, ask, reason_of
from tests.kit.server import ServerProcess, Stubs, token_of
from tests.kit.tokens import signing_key
from tests.kit.waiting import eventually
from tests.kit.wire.errors import error_info, rpc_error


def test_an_instructor_edits_the_course_that_is_theirs(stubs: Stubs) -> None:
    response = ask(stubs, "user_ivan", "course:edit")
    assert response.decision == Decision.DECISION_ALLOW
    assert reason_of(response) == "ALLOWED_BY_RULE"
    assert response.actor.user_id == "user_ivan"
    assert response.actor.organization_id == ORGANIZATION
    assert response.rule_id
    assert response.grant_id
    assert response.revision > 0
    # Reusable while the token lives: 60 s.
    assert 0 < response.reusable_until.seconds - time.time() <= 61


def test_a_student_is_forbidden_to_edit(stubs: Stubs) -> None:
    response = ask(stubs, "user_sam", "course:edit")
    assert response.decision == Decision.DECISION_DENY
    assert response.denial_kind == DenialKind.DENIAL_KIND_FORBIDDEN
    assert reason_of(response) == "PERMISSION_NOT_GRANTED"


def test_an_expired_token_is_a_denial_and_not_an_error(stubs: Stubs) -> None:
    old = token_of("user_ivan", organization_id=ORGANIZATION, claims={"exp": time.time() - 60})
    response = stubs.decision.Check(
        CheckRequest(actor_token=old, permission="course:edit", resource=ALGEBRA)
    )
    assert response.denial_kind == DenialKind.DENIAL_KIND_UNAUTHENTICATED
    assert reason_of(response) == "TOKEN_EXPIRED"
    assert not response.HasField("actor")
    assert not response.HasField("reusable_until")


def test_a_token_signed_by_somebody_else_is_refused(stubs: Stubs) -> None:
    forged = token_of("user_ada", key=signing_key("thief"))
    response = stubs.decision.Check(CheckRequest(actor_token=forged, permission="course:edit"))
    assert reason_of(response) == "TOKEN_SIGNATURE_INVALID"


def test_an_empty_token_is_a_denial(stubs: Stubs) -> None:
    response = stubs.decision.Check(CheckRequest(permission="course:edit"))
    assert reason_of(response) == "TOKEN_MALFORMED"


def test_a_role_that_the_token_claims_changes_nothing(stubs: Stubs) -> None:
    claims = {"role": "ADMIN", "roles": ["ADMIN"], "metadata": {"role": "ADMIN"}}
    token = token_of(
        "user_sam", organization_id=ORGANIZATION, organization_role="org:admin", claims=claims
    )
    response = stubs.decision.Check(
        CheckRequest(actor_token=token, permission="course:edit", resource=ALGEBRA)
    )
    assert reason_of(response) == "PERMISSION_NOT_GRANTED"


def test_a_token_that_was_allowed_one_thing_is_not_allowed_another(stubs: Stubs) -> None:
    """Oathkeeper CVE-2021-32701: a remembered token, and its scope not looked at again."""
    token = token_of("user_sam", organization_id=ORGANIZATION)
    reasons = []
    for permission in ("course:view", "course:delete", "course:view", "course:edit"):
        request = CheckRequest(actor_token=token, permission=permission, resource=ALGEBRA)
        reasons.append(reason_of(stubs.decision.Check(request)))
    assert reasons == ["ALLOWED_BY_RULE", "PERMISSION_NOT_GRANTED"] * 2


def test_an_attribute_that_the_caller_sends_does_not_override_what_is_stored(stubs: Stubs) -> None:
    attributes = Struct()
    attributes.update({"owner": "user_ivan"})
    biology = Resource(type="course", id="biology", attributes=attributes)
    assert reason_of(ask(stubs, "user_ivan", "course:edit", biology)) == "CONDITION_NOT_MET"


def test_another_organization_is_out_of_reach(stubs: Stubs) -> None:
    elsewhere = Resource(type="course", id="unstored", organization_id="org_elsewhere")
    assert reason_of(ask(stubs, "user_sam", "course:view", elsewhere)) == "WRONG_ORGANIZATION"


def test_a_resource_without_a_known_organization_is_in_no_organization(
    server: ServerProcess, stubs: Stubs
) -> None:
    """A misspelled id, or another tenant's: the message says what to store or to send, and a metric
    counts it."""
    counted = 'pdp_decisions_total{effect="deny",reason="RESOURCE_ORGANIZATION_UNKNOWN"}'

    def count() -> float:
        lines = server.http("/metrics")[1].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(counted))

    before = count()
    denied = ask(stubs, "user_ada", "course:edit", Resource(type="course", id="algebar"))
    assert reason_of(denied) == "RESOURCE_ORGANIZATION_UNKNOWN"
    assert "store the resource with its organization" in denied.message
    assert "send organization_id" in denied.message
    assert denied.rule_id == "ADMIN.allow.course:*"
    assert denied.HasField("reusable_for"), "until something that it depends on is changed"
    assert count() == before + 1
    sent = Resource(type="course", id="algebar", organization_id=ORGANIZATION)
    assert reason_of(ask(stubs, "user_ada", "course:edit", sent)) == "ALLOWED_BY_RULE"
    lesson = Resource(type="lesson", id="algebra-9", organization_id=ORGANIZATION)
    unknown = ask(stubs, "user_sam", "lesson:view", lesson)
    assert reason_of(unknown) == "RESOURCE_UNKNOWN"
    assert "correct its id" in unknown.message


def test_an_organization_that_the_user_left_gives_nothing(stubs: Stubs) -> None:
    token = token_of("user_sam", organization_id="org_left")
    response = stubs.decision.Check(CheckRequest(actor_token=token, permission="course:view"))
    assert reason_of(response) == "MEMBERSHIP_UNKNOWN"


def test_an_unknown_user_is_denied(stubs: Stubs) -> None:
    response = stubs.decision.Check(
        CheckRequest(actor_token=token_of("user_nobody"), permission="course:view")
    )
    assert reason_of(response) == "ACTOR_UNKNOWN"


@pytest.mark.parametrize(
    "permission",
    [
        "course:fly",
        "course:*",
        "*",
        "COURSE:EDIT",
        "course:edit ",
        "\u0441ourse:edit",
        "cours\u0435:edit",
    ],
)
def test_a_permission_that_nobody_declared_is_denied(stubs: Stubs, permission: str) -> None:
    """Look-alikes and wildcards in the question are names that nobody declared."""
    assert reason_of(ask(stubs, "user_ada", permission)) == "PERMISSION_UNKNOWN"


def test_a_batch_answers_each_item_as_if_it_was_asked_alone(stubs: Stubs) -> None:
    """OpenFGA CVE-2026-34972: items that differ in context only were answered as one."""
    asked = []
    for owner in ("user_ivan", "user_sam", None):
        attributes = Struct()
        if owner is not None:
            attributes.update({"owner": owner})
        asked.append(
            Resource(
                type="course", id="unstored", organization_id=ORGANIZATION, attributes=attributes
            )
        )
    token = token_of("user_ivan", organization_id=ORGANIZATION)
    batch = stubs.decision.BatchCheck(
        BatchCheckRequest(
            actor_token=token,
            items=[CheckItem(permission="course:edit", resource=resource) for resource in asked],
        )
    )
    alone = [ask(stubs, "user_ivan", "course:edit", resource) for resource in asked]
    assert [r.reason for r in batch.results] == [r.reason for r in alone]
    assert [reason_of(r) for r in alone] == [
        "ALLOWED_BY_RULE",
        "CONDITION_NOT_MET",
        "ATTRIBUTE_MISSING",
    ]
    assert batch.actor.user_id == "user_ivan"
    assert len({r.decision_id for r in batch.results}) == 3


def test_a_thousand_items_are_answered_and_one_more_is_refused(stubs: Stubs) -> None:
    items = [CheckItem(permission="course:view", resource=ALGEBRA)] * 1000
    token = token_of("user_sam", organization_id=ORGANIZATION)
    response = stubs.decision.BatchCheck(BatchCheckRequest(actor_token=token, items=items))
    assert {r.decision for r in response.results} == {Decision.DECISION_ALLOW}
    too_many = BatchCheckRequest(actor_token=token, items=[*items, items[0]])
    error = rpc_error(lambda: stubs.decision.BatchCheck(too_many))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    info = error_info(error)
    assert info.reason == "LIMIT_EXCEEDED"
    assert dict(info.metadata) == {"limit": "batch_items_max", "maximum": "1000", "value": "1001"}


def test_an_empty_batch_is_malformed(stubs: Stubs) -> None:
    error = rpc_error(lambda: stubs.decision.BatchCheck(BatchCheckRequest(actor_token="x")))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (CheckRequest(), "permission"),
        (CheckRequest(permission="p" * 257), "permission"),
        (CheckRequest(permission="a:b", resource=Resource()), "resource.type"),
        (CheckRequest(permission="a:b", resource=Resource(type="a")), "resource.id"),
        (CheckRequest(permission="a:b", resource=Resource(type="A", id="1")), "resource.type"),
        (CheckRequest(permission="a:b", resource=Resource(type="a", id="1\n2")), "resource.id"),
        (CheckRequest(permission="a:b", resource=Resource(type="a", id="x" * 257)), "resource.id"),
    ],
)
def test_a_malformed_question_names_the_field(
    stubs: Stubs, request_: CheckRequest, field: str
) -> None:
    error = rpc_error(lambda: stubs.decision.Check(request_))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert field in [violation.field for violation in bad.field_violations]


def test_a_revision_that_does_not_exist_is_unavailable_soon(stubs: Stubs) -> None:
    question = CheckRequest(
        actor_token=token_of("user_sam", organization_id=ORGANIZATION),
        permission="course:view",
        resource=ALGEBRA,
        at_least_revision=2**63 - 1,
    )
    error = rpc_error(lambda: stubs.decision.Check(question, timeout=5))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error_info(error).reason == "REVISION_NOT_REACHED"


def test_every_denial_is_logged_with_its_answer(stubs: Stubs) -> None:
    response = ask(stubs, "user_sam", "course:delete")

    def is_on_record() -> bool:
        try:
            stubs.audit.GetDecision(GetDecisionRequest(decision_id=response.decision_id))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND
            return False
        return True

    eventually(is_on_record)
    record = stubs.audit.GetDecision(GetDecisionRequest(decision_id=response.decision_id)).decision
    assert record.reason == response.reason
    assert record.actor.user_id == "user_sam"
    assert record.permission == "course:delete"
    assert (record.resource.type, record.resource.id) == ("course", "algebra")
    assert record.resource_organization_id == ORGANIZATION
    assert record.caller == "anonymous"
    assert record.revision == response.revision
    assert len(record.token_fingerprint) == 16


def test_readiness_health_and_metrics_speak(server: ServerProcess) -> None:
    assert server.http("/healthz") == (200, "alive\n")
    assert server.http("/readyz") == (200, "ready\n")
    text = server.http("/metrics")[1]
    assert 'pdp_decisions_total{effect="allow"' in text
    assert "pdp_rpc_seconds_count" in text
    assert "pdp_ready 1.0" in text
