"""The method table against the contract, and the contract against what is read of it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf.descriptor import Descriptor
from pdpapi.v1 import (
    access_query_service_pb2,
    administration_service_pb2,
    audit_service_pb2,
    caller_service_pb2,
    change_service_pb2,
    core_pb2,
    decision_service_pb2,
    explain_service_pb2,
    review_service_pb2,
)

from pdp import model
from pdp.audit import AnswerSource
from pdp.facts import ChangeKind
from pdp.wire import (
    Watchers,
    access_query_methods,
    administration_methods,
    audit_methods,
    caller_methods,
    campaign_methods,
    decision_methods,
    explain_methods,
    external_auth_pb2,
    external_authorization_methods,
    review_methods,
)
from pdp.wire.methods import AnyMethod
from pdp.wire.services import access_queries
from pdp.wire.services.changes import KINDS

NOBODY = cast(Any, None)
METHODS: list[AnyMethod] = [
    *decision_methods(NOBODY, NOBODY),
    *access_query_methods(NOBODY, NOBODY, NOBODY),
    *external_authorization_methods(NOBODY, NOBODY, ""),
    *administration_methods(NOBODY, NOBODY, NOBODY, NOBODY),
    *audit_methods(NOBODY, NOBODY, NOBODY, NOBODY, reported=NOBODY, pool=NOBODY),
    *explain_methods(NOBODY),
    *caller_methods(),
    *review_methods(NOBODY, NOBODY, NOBODY, NOBODY, NOBODY, clock=NOBODY),
    *campaign_methods(NOBODY, NOBODY, NOBODY),
    *Watchers(cast(Any, SimpleNamespace(on_change=NOBODY))).methods(),
]
MODULES = (
    access_query_service_pb2,
    decision_service_pb2,
    administration_service_pb2,
    audit_service_pb2,
    caller_service_pb2,
    change_service_pb2,
    explain_service_pb2,
    external_auth_pb2,
    review_service_pb2,
)


def test_the_table_holds_every_method_of_the_contract_and_no_other() -> None:
    contract = {
        f"/{service.full_name}/{method.name}": method.input_type.full_name
        for module in MODULES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert {m.path: m.request.DESCRIPTOR.full_name for m in METHODS} == contract
    assert len(METHODS) == len(contract)


def test_each_capability_allows_its_methods() -> None:
    """A golden table: what a caller with one capability reaches."""
    reached: dict[str, set[str]] = {}
    for method in METHODS:
        reached.setdefault(method.access, set()).add(method.service.rpartition(".")[2])
    who_may = {m.name: m.access for m in METHODS if m.service == access_queries.SERVICE}
    assert who_may.pop("ListAllowedActors") == "audit"
    assert set(who_may.values()) == {"decide"}
    assert reached == {
        "decide": {
            "PolicyDecisionService",
            "AccessQueryService",
            "ChangeService",
            "Authorization",
        },
        "administer": {"PolicyAdministrationService"},
        "audit": {"AuditService", "AccessQueryService", "ExplainService", "ReviewService"},
        "report": {"AuditService"},
        "caller": {"CallerService"},
    }


# The fields that reach facts and decision, by message. A field that is added to the contract
# must be placed here, after it was made sure that every cache that it concerns knows it.
READ = {
    "pdpapi.v1.CheckRequest": {
        "actor_token",
        "permission",
        "resource",
        "context",
        "at_least_revision",
    },
    "pdpapi.v1.BatchCheckRequest": {"actor_token", "items", "at_least_revision"},
    "pdpapi.v1.CheckItem": {"permission", "resource", "context"},
    "pdpapi.v1.Resource": {"type", "id", "organization_id", "parent", "attributes"},
    "pdpapi.v1.ResourceRef": {"type", "id"},
}


@pytest.mark.parametrize(
    "message",
    [
        decision_service_pb2.CheckRequest.DESCRIPTOR,
        decision_service_pb2.BatchCheckRequest.DESCRIPTOR,
        decision_service_pb2.CheckItem.DESCRIPTOR,
        core_pb2.Resource.DESCRIPTOR,
        core_pb2.ResourceRef.DESCRIPTOR,
    ],
    ids=lambda message: message.name,
)
def test_no_field_of_a_question_is_new_without_notice(message: Descriptor) -> None:
    """SpiceDB CVE-2026-46668 and CVE-2026-55866: a field that no cache key knew of."""
    assert {field.name for field in message.fields} == READ[message.full_name]


def test_the_enums_of_the_contract_are_those_of_the_model() -> None:
    def names(enum: Any, prefix: str) -> set[str]:
        return {name.removeprefix(prefix) for name in enum.keys()} - {"UNSPECIFIED"}  # noqa: SIM118

    assert names(core_pb2.DecisionReason, "DECISION_REASON_") == {r.name for r in model.Reason}
    assert names(core_pb2.Decision, "DECISION_") == {e.name for e in model.Effect}
    assert names(core_pb2.DenialKind, "DENIAL_KIND_") == {k.name for k in model.DenialKind}
    sources = {source.name for source in AnswerSource} - {"DECIDED"}
    assert names(core_pb2.AnswerSource, "ANSWER_SOURCE_") == sources


def test_every_kind_of_change_has_a_name_on_the_wire() -> None:
    """Except the one that is sent as `start_over`."""
    wire = set(change_service_pb2.ChangeKind.values()) - {0}
    assert set(KINDS) == set(ChangeKind) - {ChangeKind.EVERYTHING}
    assert sorted(KINDS.values()) == sorted(wire)
