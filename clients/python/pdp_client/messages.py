"""Converts between values and messages of the contract. Only this file knows both, and it decides
whether an answer is valid."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.struct_pb2 import Struct
from pdpapi.v1 import access_query_service_pb2, core_pb2, decision_service_pb2

from pdp_client.attributes import to_struct
from pdp_client.cache import Fresh, Touched
from pdp_client.errors import PdpUnavailable
from pdp_client.permissions import Held, PermissionSet
from pdp_client.plans import Plan, PlanInvalid, plan_from_message
from pdp_client.values import (
    Actor,
    AnswerSource,
    Attributes,
    Decision,
    DenialKind,
    Effect,
    Factor,
    Question,
    Resource,
    StepUp,
    Token,
)

BATCH_QUESTIONS_MAX = 1_000

_DENIAL_KINDS = {
    core_pb2.DENIAL_KIND_UNAUTHENTICATED: DenialKind.UNAUTHENTICATED,
    core_pb2.DENIAL_KIND_FORBIDDEN: DenialKind.FORBIDDEN,
}
_SOURCES = {
    core_pb2.ANSWER_SOURCE_UNSPECIFIED: AnswerSource.DECIDED,
    core_pb2.ANSWER_SOURCE_CACHED: AnswerSource.CACHED,
    core_pb2.ANSWER_SOURCE_STAYED_OPEN: AnswerSource.STAYED_OPEN,
}
_FACTORS = {
    decision_service_pb2.StepUp.FACTOR_FIRST: Factor.FIRST,
    decision_service_pb2.StepUp.FACTOR_SECOND: Factor.SECOND,
    decision_service_pb2.StepUp.FACTOR_BOTH: Factor.BOTH,
}
_REASON_PREFIX = "DECISION_REASON_"


def check_request(
    token: Token, question: Question, at_least_revision: int
) -> decision_service_pb2.CheckRequest:
    """The message for a question."""
    return decision_service_pb2.CheckRequest(
        actor_token=_sendable(token),
        permission=question.permission,
        resource=_resource(question.resource),
        context=_struct(question.context, "context"),
        at_least_revision=at_least_revision,
    )


def batch_request(
    token: Token, questions: Sequence[Question], at_least_revision: int
) -> decision_service_pb2.BatchCheckRequest:
    """The message for many questions. Raises ValueError for none, and for more than 1,000."""
    if not 1 <= len(questions) <= BATCH_QUESTIONS_MAX:
        raise ValueError(f"a batch has 1 to {BATCH_QUESTIONS_MAX} questions, not {len(questions)}")
    return decision_service_pb2.BatchCheckRequest(
        actor_token=_sendable(token),
        items=[_item(question) for question in questions],
        at_least_revision=at_least_revision,
    )


def decision_from_check(answer: decision_service_pb2.CheckResponse) -> Decision:
    """The decision in an answer to Check. Raises PdpUnavailable if the answer is not valid."""
    return _decision(answer, _actor(answer))


def fresh_from_check(
    request: decision_service_pb2.CheckRequest,
    answer: decision_service_pb2.CheckResponse,
    sent_at: float,
) -> Fresh[tuple[Decision, Decision]]:
    """The decision as it is now and as the cache will return it. Raises PdpUnavailable if the
    answer is not valid.

    Only an allow that the PDP decided for this very request is cached: each denial has to be
    logged, and the age of an answer from another cache is unknown.
    """
    decision = decision_from_check(answer)
    fresh_allow = decision.effect is Effect.ALLOW and decision.source is AnswerSource.DECIDED
    seconds = None
    if fresh_allow and answer.HasField("reusable_for"):
        seconds = answer.reusable_for.seconds + answer.reusable_for.nanos / 1e9
    return Fresh(
        answer=(decision, dataclasses.replace(decision, source=AnswerSource.CACHED)),
        sent_at=sent_at,
        epoch=answer.epoch,
        revision=answer.revision,
        reusable_seconds=seconds,
        touched=_touched(request, answer),
    )


def _touched(
    request: decision_service_pb2.CheckRequest, answer: decision_service_pb2.CheckResponse
) -> Touched:
    resources = [*answer.ancestors]
    if request.HasField("resource"):
        resources.append(core_pb2.ResourceRef(type=request.resource.type, id=request.resource.id))
    return Touched(
        user_id=answer.actor.user_id,
        organization_id=answer.actor.organization_id,
        resources=frozenset((resource.type, resource.id) for resource in resources),
    )


def decisions_from_batch(
    answer: decision_service_pb2.BatchCheckResponse, count: int
) -> list[Decision]:
    """The decisions in an answer to `count` questions. Raises PdpUnavailable."""
    if len(answer.results) != count:
        raise _no_answer(f"{len(answer.results)} results to {count} questions")
    actor = _actor(answer)
    return [_decision(result, actor) for result in answer.results]


def as_list(resources: Resource | Sequence[Resource]) -> Sequence[Resource]:
    """A resource as a list; a list unchanged."""
    return [resources] if isinstance(resources, Resource) else resources


def plan_request(
    token: Token,
    permission: str,
    resource_type: str,
    context: Attributes | None,
    at_least_revision: int,
    *,
    allow_superset: bool,
) -> access_query_service_pb2.PlanResourcesRequest:
    """The message that asks for a plan."""
    return access_query_service_pb2.PlanResourcesRequest(
        actor_token=_sendable(token),
        permission=permission,
        resource_type=resource_type,
        context=_struct(context, "context"),
        at_least_revision=at_least_revision,
        allow_superset=allow_superset,
    )


def plan_from_answer(
    answer: access_query_service_pb2.PlanResourcesResponse,
    request: access_query_service_pb2.PlanResourcesRequest,
) -> Plan:
    """The plan in an answer. Raises PdpUnavailable if it does not answer the request."""
    try:
        plan = plan_from_message(answer.plan)
    except PlanInvalid as error:
        raise PdpUnavailable(f"the plan is not valid: {error}") from None
    asked = (request.permission, request.resource_type)
    is_refused = answer.HasField("refusal") or not answer.HasField("actor")
    if (
        (plan.permission, plan.resource_type) != asked
        or (is_refused and not plan.nothing)
        or (plan.check_each_row and not request.allow_superset)
    ):
        raise PdpUnavailable("the plan contradicts the question or itself")
    return plan


def permissions_request(
    token: Token,
    resources: Sequence[Resource],
    context: Attributes | None,
    at_least_revision: int,
) -> access_query_service_pb2.ListAllowedPermissionsRequest:
    """The message that asks for permissions. Raises ValueError for more than 1,000 resources."""
    if len(resources) > BATCH_QUESTIONS_MAX:
        raise ValueError(f"at most {BATCH_QUESTIONS_MAX} resources, not {len(resources)}")
    return access_query_service_pb2.ListAllowedPermissionsRequest(
        actor_token=_sendable(token),
        resources=[_resource_message(resource) for resource in resources],
        context=_struct(context, "context"),
        at_least_revision=at_least_revision,
    )


def permissions_from_answer(
    answer: access_query_service_pb2.ListAllowedPermissionsResponse, resources: Sequence[Resource]
) -> PermissionSet:
    """The permissions on these resources in an answer. Raises PdpUnavailable if it contradicts
    itself."""
    if len(answer.results) != len(resources):
        raise _no_answer(f"{len(answer.results)} results for {len(resources)} resources")
    if answer.HasField("refusal") and answer.refusal.denial_kind not in _DENIAL_KINDS:
        raise _no_answer(f"a refusal of unknown kind {answer.refusal.denial_kind}")
    may = _actor(answer) is not None and not answer.HasField("refusal")
    held, denied = set[Held](), set[Held]()
    for resource, result in zip(resources, answer.results, strict=True):
        if result.allowed and not may:
            raise _no_answer("permissions without an actor")
        for permission in result.allowed:
            if not permission.startswith(f"{resource.type}:") or permission in result.denied:
                raise _no_answer("a permission of another type, or one that is denied too")
            held.add((permission, resource.type, resource.id))
        denied.update((permission, resource.type, resource.id) for permission in result.denied)
    return PermissionSet(frozenset(held - denied))


def _sendable(token: Token) -> str:
    """The token as it is sent. A token that is not Unicode text cannot be sent and proves nothing,
    so the empty token replaces it: the PDP denies it and logs the denial."""
    text = token.reveal()
    try:
        text.encode()
    except UnicodeEncodeError:
        return ""
    return text


def _item(question: Question) -> decision_service_pb2.CheckItem:
    return decision_service_pb2.CheckItem(
        permission=question.permission,
        resource=_resource(question.resource),
        context=_struct(question.context, "context"),
    )


def _resource(resource: Resource | None) -> core_pb2.Resource | None:
    return None if resource is None else _resource_message(resource)


def _resource_message(resource: Resource) -> core_pb2.Resource:
    parent = resource.parent
    return core_pb2.Resource(
        type=resource.type,
        id=resource.id,
        organization_id=resource.organization_id or "",
        parent=None if parent is None else core_pb2.ResourceRef(type=parent.type, id=parent.id),
        attributes=_struct(resource.attributes, "attributes"),
    )


def _struct(attributes: Attributes | None, name: str) -> Struct | None:
    return None if attributes is None else to_struct(attributes, name)


def _actor(
    answer: decision_service_pb2.CheckResponse
    | decision_service_pb2.BatchCheckResponse
    | access_query_service_pb2.ListAllowedPermissionsResponse,
) -> Actor | None:
    if not answer.HasField("actor"):
        return None
    actor = answer.actor
    if not actor.user_id:
        raise _no_answer("an actor without a user")
    return Actor(
        user_id=actor.user_id,
        session_id=actor.session_id,
        organization_id=actor.organization_id or None,
        impersonator_id=actor.impersonator_id or None,
    )


def _decision(answer: decision_service_pb2.CheckResponse, actor: Actor | None) -> Decision:
    kind = _DENIAL_KINDS.get(answer.denial_kind)
    if answer.decision == core_pb2.DECISION_ALLOW:
        effect = Effect.ALLOW
        if answer.denial_kind != core_pb2.DENIAL_KIND_UNSPECIFIED:
            raise _no_answer("an allow with a kind of denial")
        if actor is None:
            raise _no_answer("an allow without an actor")
    elif answer.decision == core_pb2.DECISION_DENY:
        effect = Effect.DENY
        if kind is None:
            raise _no_answer(f"a denial of unknown kind {answer.denial_kind}")
    else:
        raise _no_answer(f"decision {answer.decision}")
    source = _SOURCES.get(answer.source)
    if source is None:
        raise _no_answer(f"an answer of unknown source {answer.source}")
    return Decision(
        effect=effect,
        reason=_reason(answer.reason),
        message=answer.message,
        denial_kind=kind,
        actor=actor,
        decision_id=answer.decision_id,
        rule_id=answer.rule_id or None,
        grant_id=answer.grant_id or None,
        revision=answer.revision,
        reusable_until=_reusable_until(answer),
        source=source,
        step_up=_step_up(answer) if effect is Effect.DENY else None,
    )


def _step_up(answer: decision_service_pb2.CheckResponse) -> StepUp | None:
    """The step up of a denial; None also for a factor that only a newer PDP knows: the denial holds
    anyway."""
    factor = _FACTORS.get(answer.step_up.factor)
    return None if factor is None else StepUp(factor, answer.step_up.max_age.seconds)


def _reason(number: core_pb2.DecisionReason.ValueType) -> str:
    try:
        return core_pb2.DecisionReason.Name(number).removeprefix(_REASON_PREFIX)
    except ValueError:  # a newer PDP knows more reasons; the decision holds anyway
        return str(number)


def _reusable_until(answer: decision_service_pb2.CheckResponse) -> datetime | None:
    if not answer.HasField("reusable_until"):
        return None
    try:
        return answer.reusable_until.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise _no_answer("reusable_until is not a time") from None


def _no_answer(what: str) -> PdpUnavailable:
    return PdpUnavailable(f"the PDP sent an invalid answer: {what}")
