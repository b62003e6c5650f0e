"""PolicyDecisionService: CheckRequest -> questions -> ruling -> CheckResponse."""

import functools
from collections.abc import Callable, Mapping, Sequence

from google.protobuf.struct_pb2 import Struct
from pdpapi.v1 import core_pb2, decision_service_pb2
from pdpapi.v1.core_pb2 import DecisionReason, DenialKind
from pdpapi.v1.decision_service_pb2 import (
    BatchCheckRequest,
    BatchCheckResponse,
    CheckItem,
    CheckRequest,
    CheckResponse,
    StepUp,
)
from pdpapi.v1.explain_service_pb2 import ExplainRequest

from pdp import model, names
from pdp.authorizer import Authorizer
from pdp.concurrency.pacing import Pace
from pdp.errors import InvalidRequest, LimitExceeded, Violation
from pdp.limits import (
    ATTRIBUTE_BYTES_MAX,
    BATCH_ITEMS_MAX,
    IDENTIFIER_CHARACTERS_MAX,
    MESSAGE_BYTES_MAX,
    TOKEN_BYTES_MAX,
)
from pdp.ruling import Ruling
from pdp.wire.callers import Caller
from pdp.wire.convert import entities
from pdp.wire.convert.attributes import ReadAttributes, attributes_of
from pdp.wire.convert.times import set_duration, set_time
from pdp.wire.methods import Method

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
FACTORS: Mapping[model.Factor, StepUp.Factor.ValueType] = {
    factor: StepUp.Factor.Value(f"FACTOR_{factor.name}") for factor in model.Factor
}
REASONS: Mapping[model.Reason, DecisionReason.ValueType] = {
    reason: DecisionReason.Value(f"DECISION_REASON_{reason.name}") for reason in model.Reason
}
# What follows from effect and reason is encoded once: properties of an enum are slow.
_ANSWERS: Mapping[tuple[model.Effect, model.Reason], bytes] = {
    (effect, reason): CheckResponse(
        decision=EFFECTS[effect],
        denial_kind=KINDS[reason.denial_kind],
        reason=REASONS[reason],
        message=reason.value,
    ).SerializeToString()
    for effect in model.Effect
    for reason in model.Reason
}


Count = Callable[[Sequence[model.Decision]], None]
"""Receives the decisions of each answer, for metrics."""


def decision_methods(authorizer: Authorizer, count: Count) -> Sequence[Method]:
    """The methods of PolicyDecisionService."""

    async def check(request: CheckRequest, caller: Caller) -> CheckResponse:
        ruling = await authorizer.rule(
            request.actor_token, (question_of(request),), caller.name, request.at_least_revision
        )
        count(ruling.decisions)
        response = _response(ruling, ruling.decisions[0])
        response.decision_id = ruling.decision_ids[0]
        _write_ancestors(response, ruling, 0)
        if isinstance(ruling.token, model.VerifiedToken):
            write_actor(response.actor, ruling.token.actor)
        return response

    async def batch_check(request: BatchCheckRequest, caller: Caller) -> BatchCheckResponse:
        questions = await _questions(request)
        ruling = await authorizer.rule(
            request.actor_token, questions, caller.name, request.at_least_revision
        )
        count(ruling.decisions)
        return await _batch_response(ruling)

    return (
        Method(SERVICE, "Check", "decide", CheckRequest, check, CHECK_BYTES_MAX),
        Method(SERVICE, "BatchCheck", "decide", BatchCheckRequest, batch_check, MESSAGE_BYTES_MAX),
    )


async def _batch_response(ruling: Ruling) -> BatchCheckResponse:
    response = BatchCheckResponse()
    add = response.results.add
    # Most items of a batch have one of a few answers: each is built once, and copied.
    answers: dict[model.Decision, CheckResponse] = {}
    pace = Pace()
    for index, decision in enumerate(ruling.decisions):
        answer = answers.get(decision)
        if answer is None:
            answer = answers[decision] = _response(ruling, decision)
        result = add()
        result.CopyFrom(answer)
        result.decision_id = ruling.decision_ids[index]
        _write_ancestors(result, ruling, index)
        if pace.is_over():
            await pace.give_way()
    if isinstance(ruling.token, model.VerifiedToken):
        write_actor(response.actor, ruling.token.actor)
    return response


async def _questions(request: BatchCheckRequest) -> list[model.Question]:
    items = len(request.items)
    if items > BATCH_ITEMS_MAX:
        raise LimitExceeded("batch_items_max", BATCH_ITEMS_MAX, items)
    if not items:
        raise InvalidRequest(Violation("items", "must hold at least one question"))
    questions: list[model.Question] = []
    read, pace = _reading_once(), Pace()
    try:
        for item in request.items:
            questions.append(question_of(item, read))
            if pace.is_over():
                await pace.give_way()
    except InvalidRequest as error:
        raise error.within(f"items[{len(questions)}]") from None
    return questions


def _reading_once() -> ReadAttributes:
    """Reads equal attributes once: the items of a batch often differ in their ids only."""
    known: dict[bytes, model.Attributes] = {}

    def read(struct: Struct, field: str) -> model.Attributes:
        raw = struct.SerializeToString()
        attributes = known.get(raw)
        if attributes is None:
            attributes = known[raw] = attributes_of(struct, field)
        return attributes

    return read


def question_of(
    item: CheckRequest | CheckItem | ExplainRequest, read: ReadAttributes = attributes_of
) -> model.Question:
    """The question of a request. Raises InvalidRequest."""
    permission = item.permission
    wrong = check_permission(permission)
    if wrong is not None:
        raise InvalidRequest(wrong)
    return model.Question(
        permission,
        checked_resource(item.resource, read) if item.HasField("resource") else None,
        read(item.context, "context") if item.HasField("context") else {},
    )


def check_permission(permission: str) -> Violation | None:
    """Checks the length only: a permission of another form is not declared, which is a denial."""
    if permission and len(permission) <= IDENTIFIER_CHARACTERS_MAX:
        return None
    return Violation("permission", f"must have 1 to {IDENTIFIER_CHARACTERS_MAX} characters")


def checked_resource(
    message: core_pb2.Resource, read: ReadAttributes = attributes_of
) -> model.Resource:
    """The resource of a question. Raises InvalidRequest for names that no resource can have."""
    resource = entities.resource_of(message, read)
    type_, id_, organization_id, parent, _ = resource
    wrong = _check_type(type_, "resource.type") or names.check_identifier(id_, "resource.id")
    if organization_id is not None:
        wrong = wrong or names.check_identifier(organization_id, "resource.organization_id")
    if parent is not None:
        wrong = wrong or _check_type(parent.type, "resource.parent.type")
        wrong = wrong or names.check_identifier(parent.id, "resource.parent.id")
    if wrong is not None:
        raise InvalidRequest(wrong)
    return resource


# An application has few resource types.
_check_type = functools.lru_cache(maxsize=1024)(names.check_resource_type)


def _response(ruling: Ruling, decision: model.Decision) -> CheckResponse:
    """The answer, without its id and the actor."""
    response = CheckResponse.FromString(_ANSWERS[decision.effect, decision.reason])
    response.revision = ruling.revision
    if decision.rule_id is not None:
        response.rule_id = decision.rule_id
    if decision.grant_id is not None:
        response.grant_id = decision.grant_id
    step_up = decision.step_up
    if step_up is not None:
        response.step_up.factor = FACTORS[step_up.factor]
        set_duration(response.step_up.max_age, step_up.max_age_minutes * 60)
    if ruling.view is not None:
        response.epoch = ruling.view.snapshot.epoch
    until = decision.reusable_until
    if until is not None:
        set_time(response.reusable_until, until)
        if until > ruling.decided_at:
            set_duration(response.reusable_for, until - ruling.decided_at)
    return response


def _write_ancestors(response: CheckResponse, ruling: Ruling, index: int) -> None:
    """Writes the ancestors of the resource: their changes affect the answer too."""
    if ruling.view is None:
        return
    for above in ruling.view.chains[index][1:]:
        response.ancestors.add(type=above.resource.type, id=above.resource.id)


def write_actor(message: core_pb2.Actor, actor: model.Actor) -> None:
    """Writes an actor into a message, in place: a message of its own would be copied."""
    message.user_id = actor.user_id
    message.session_id = actor.session_id
    if actor.organization_id is not None:
        message.organization_id = actor.organization_id
    if actor.impersonator_id is not None:
        message.impersonator_id = actor.impersonator_id
