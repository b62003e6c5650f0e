"""PolicyDecisionService: CheckRequest -> questions -> ruling -> CheckResponse."""

from collections.abc import Callable, Mapping, Sequence

from pdpapi.v1 import core_pb2, decision_service_pb2
from pdpapi.v1.core_pb2 import DecisionReason, DenialKind
from pdpapi.v1.decision_service_pb2 import (
    BatchCheckRequest,
    BatchCheckResponse,
    CheckItem,
    CheckRequest,
    CheckResponse,
)

from pdp import model
from pdp.authorizer import Authorizer, Ruling
from pdp.decision import names
from pdp.errors import InvalidRequest, LimitExceeded, Violation
from pdp.limits import (
    ATTRIBUTE_BYTES_MAX,
    BATCH_ITEMS_MAX,
    IDENTIFIER_CHARACTERS_MAX,
    MESSAGE_BYTES_MAX,
    TOKEN_BYTES_MAX,
)
from pdp.wire import entities
from pdp.wire.attributes import attributes_of
from pdp.wire.callers import Caller
from pdp.wire.methods import Method
from pdp.wire.times import set_time

SERVICE = decision_service_pb2.DESCRIPTOR.services_by_name["PolicyDecisionService"].full_name
CHECK_BYTES_MAX = 2 * ATTRIBUTE_BYTES_MAX + 2 * TOKEN_BYTES_MAX

EFFECTS: Mapping[model.Effect, core_pb2.Decision.ValueType] = {
    model.Effect.ALLOW: core_pb2.Decision.DECISION_ALLOW,
    model.Effect.DENY: core_pb2.Decision.DECISION_DENY,
}
KINDS: Mapping[model.DenialKind | None, DenialKind.ValueType] = {
    None: DenialKind.DENIAL_KIND_UNSPECIFIED,
    model.DenialKind.UNAUTHENTICATED: DenialKind.DENIAL_KIND_UNAUTHENTICATED,
    model.DenialKind.FORBIDDEN: DenialKind.DENIAL_KIND_FORBIDDEN,
}
REASONS: Mapping[model.Reason, DecisionReason.ValueType] = {
    reason: DecisionReason.Value(f"DECISION_REASON_{reason.name}") for reason in model.Reason
}
# Looked up once a decision: properties of an enum are slow.
_KIND_OF_REASON = {reason: KINDS[reason.denial_kind] for reason in model.Reason}


Count = Callable[[str, str], None]
"""Told (effect, reason name) of every decision."""


def decision_methods(authorizer: Authorizer, count: Count) -> Sequence[Method]:
    """The methods of PolicyDecisionService."""

    def rule(
        request: CheckRequest | BatchCheckRequest,
        questions: Sequence[model.Question],
        caller: Caller,
    ) -> Ruling:
        ruling = authorizer.rule(
            request.actor_token, questions, caller.name, request.at_least_revision
        )
        for decision in ruling.decisions:
            count(decision.effect.value, decision.reason.name)
        return ruling

    def check(request: CheckRequest, caller: Caller) -> CheckResponse:
        ruling = rule(request, (_question(request, ""),), caller)
        response = _response(ruling, 0)
        if isinstance(ruling.token, model.VerifiedToken):
            response.actor.CopyFrom(actor_message(ruling.token.actor))
        return response

    def batch_check(request: BatchCheckRequest, caller: Caller) -> BatchCheckResponse:
        count = len(request.items)
        if count > BATCH_ITEMS_MAX:
            raise LimitExceeded("batch_items_max", BATCH_ITEMS_MAX, count)
        if not count:
            raise InvalidRequest(Violation("items", "must hold at least one question"))
        questions = [_question(item, f"items[{i}].") for i, item in enumerate(request.items)]
        ruling = rule(request, questions, caller)
        response = BatchCheckResponse(results=[_response(ruling, i) for i in range(count)])
        if isinstance(ruling.token, model.VerifiedToken):
            response.actor.CopyFrom(actor_message(ruling.token.actor))
        return response

    return (
        Method(SERVICE, "Check", "decide", CheckRequest, check, CHECK_BYTES_MAX),
        Method(SERVICE, "BatchCheck", "decide", BatchCheckRequest, batch_check, MESSAGE_BYTES_MAX),
    )


def _question(item: CheckRequest | CheckItem, prefix: str) -> model.Question:
    permission = item.permission
    # A permission of any other form is simply not declared: a denial, not an error.
    if not permission or len(permission) > IDENTIFIER_CHARACTERS_MAX:
        raise InvalidRequest(
            Violation(
                f"{prefix}permission", f"must have 1 to {IDENTIFIER_CHARACTERS_MAX} characters"
            )
        )
    resource = None
    if item.HasField("resource"):
        resource = _resource(item.resource, f"{prefix}resource")
    context = attributes_of(item.context, f"{prefix}context") if item.HasField("context") else {}
    return model.Question(permission, resource, context)


def _resource(message: core_pb2.Resource, field: str) -> model.Resource:
    resource = entities.resource_of(message, field)
    checks = [
        names.check_resource_type(resource.type, f"{field}.type"),
        names.check_identifier(resource.id, f"{field}.id"),
    ]
    if resource.organization_id is not None:
        checks.append(names.check_identifier(resource.organization_id, f"{field}.organization_id"))
    if resource.parent is not None:
        checks.append(names.check_resource_type(resource.parent.type, f"{field}.parent.type"))
        checks.append(names.check_identifier(resource.parent.id, f"{field}.parent.id"))
    violations = [violation for violation in checks if violation is not None]
    if violations:
        raise InvalidRequest(*violations)
    return resource


def _response(ruling: Ruling, index: int) -> CheckResponse:
    decision = ruling.decisions[index]
    response = CheckResponse(
        decision=EFFECTS[decision.effect],
        rule_id=decision.rule_id or "",
        grant_id=decision.grant_id or "",
        decision_id=ruling.decision_ids[index],
        revision=ruling.revision,
        denial_kind=_KIND_OF_REASON[decision.reason],
        reason=REASONS[decision.reason],
        message=decision.reason.value,
    )
    if decision.reusable_until is not None:
        set_time(response.reusable_until, decision.reusable_until)
    return response


def actor_message(actor: model.Actor) -> core_pb2.Actor:
    """The actor, as the wire says it."""
    return core_pb2.Actor(
        user_id=actor.user_id,
        session_id=actor.session_id,
        organization_id=actor.organization_id or "",
        impersonator_id=actor.impersonator_id or "",
    )
