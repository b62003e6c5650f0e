"""ExplainService: ExplainRequest -> question and actor -> explanation -> ExplainResponse."""

from collections.abc import Sequence
from math import isfinite

from pdpapi.v1 import explain_service_pb2
from pdpapi.v1.explain_service_pb2 import (
    ExplainRequest,
    ExplainResponse,
    ExplanationStep,
    WouldAllow,
)
from pdpapi.v1.explain_service_pb2 import NamedActor as NamedActorMessage

from pdp import model, names
from pdp.decision import Change, NamedActor, Step
from pdp.decision.explanation import ChangeKind, StepKind, StepStatus
from pdp.errors import InvalidRequest, Violation
from pdp.explainer import Explained, Explainer
from pdp.limits import ATTRIBUTE_BYTES_MAX, TOKEN_BYTES_MAX
from pdp.wire.callers import Caller
from pdp.wire.convert.attributes import attributes_of
from pdp.wire.methods import Method, rpc
from pdp.wire.services.audit import record_message
from pdp.wire.services.decision import EFFECTS, KINDS, REASONS, question_of
from pdp.wire.shares import Places

SERVICE = explain_service_pb2.DESCRIPTOR.services_by_name["ExplainService"].full_name
EXPLAIN_BYTES_MAX = 3 * ATTRIBUTE_BYTES_MAX + 2 * TOKEN_BYTES_MAX
CLAIMED_PERMISSIONS_MAX = 1_000
EXPLANATIONS_SHARE = 8
"""Of one caller at once. They wait for a single thread, and must not take the places of Checks."""
EXPLANATIONS_MAX = 16

STEP_KINDS = {kind: ExplanationStep.Kind.Value(f"KIND_{kind.name}") for kind in StepKind}
STEP_STATUSES = {
    status: ExplanationStep.Status.Value(f"STATUS_{status.name}") for status in StepStatus
}
CHANGE_KINDS = {kind: WouldAllow.Change.Kind.Value(f"KIND_{kind.name}") for kind in ChangeKind}


def explain_methods(explainer: Explainer) -> Sequence[Method]:
    """The methods of ExplainService."""
    places = Places("explanations_share", EXPLANATIONS_SHARE, EXPLANATIONS_MAX)

    async def explain(request: ExplainRequest, caller: Caller) -> ExplainResponse:
        give_back = places.take(caller.name)
        try:
            return _response(await _explained(explainer, request))
        finally:
            give_back()

    return (rpc(SERVICE, "Explain", "audit", explain, EXPLAIN_BYTES_MAX),)


async def _explained(explainer: Explainer, request: ExplainRequest) -> Explained:
    if request.WhichOneof("asking") != "decision_id":
        return await explainer.explain(
            _asking(request), question_of(request), request.at_least_revision
        )
    if request.permission:
        text = "must be empty: that of the recorded decision is asked"
        raise InvalidRequest(Violation("permission", text))
    return await explainer.explain_recorded(
        request.decision_id,
        attributes_of(request.resource.attributes, "resource.attributes"),
        attributes_of(request.context, "context"),
        request.at_least_revision,
    )


def _response(explained: Explained) -> ExplainResponse:
    explanation = explained.explanation
    decision = explanation.decision
    response = ExplainResponse(
        decision=EFFECTS[decision.effect],
        denial_kind=KINDS[decision.reason.denial_kind],
        reason=REASONS[decision.reason],
        rule_id=decision.rule_id or "",
        grant_id=decision.grant_id or "",
        revision=explained.revision,
        search_was_cut=explanation.search_was_cut,
    )
    _write_step(response.tree, explanation.tree)
    for changes in explanation.would_allow:
        response.would_allow.add(changes=map(_change_message, changes))
    if explained.recorded is not None:
        response.recorded.CopyFrom(record_message(explained.recorded))
        for difference in explained.differences():
            response.differences.add(**difference._asdict())
    return response


def _asking(request: ExplainRequest) -> str | NamedActor:
    if request.WhichOneof("asking") != "actor":
        return request.actor_token
    message = request.actor
    wrong = names.check_identifier(message.user_id, "actor.user_id")
    for field in ("session_id", "organization_id", "impersonator_id"):
        value = getattr(message, field)
        if value:
            wrong = wrong or names.check_identifier(value, f"actor.{field}")
    if wrong is not None:
        raise InvalidRequest(wrong)
    if len(message.claimed_permissions) > CLAIMED_PERMISSIONS_MAX:
        text = f"holds more than {CLAIMED_PERMISSIONS_MAX} permissions"
        raise InvalidRequest(Violation("actor.claimed_permissions", text))
    return NamedActor(
        model.Actor(
            message.user_id,
            message.session_id,
            message.organization_id or None,
            message.impersonator_id or None,
        ),
        claims=attributes_of(message.claims, "actor.claims"),
        claimed_permissions=tuple(sorted(message.claimed_permissions)),
        first_factor_minutes=_minutes(message, "first_factor_minutes"),
        second_factor_minutes=_minutes(message, "second_factor_minutes"),
    )


def _minutes(message: NamedActorMessage, field: str) -> float | None:
    if not message.HasField(field):  # type: ignore[arg-type]
        return None
    minutes: float = getattr(message, field)
    if not isfinite(minutes) or minutes < 0:
        raise InvalidRequest(Violation(f"actor.{field}", "must be a number of minutes, 0 or more"))
    return minutes


def _write_step(message: ExplanationStep, step: Step) -> None:
    message.kind = STEP_KINDS[step.kind]
    message.status = STEP_STATUSES[step.status]
    message.text = step.text
    message.id = step.id
    message.grant_id = step.grant_id
    for child in step.children:
        _write_step(message.children.add(), child)


def _change_message(change: Change) -> WouldAllow.Change:
    return WouldAllow.Change(
        kind=CHANGE_KINDS[change.kind],
        text=change.text,
        target=change.target,
        value=change.value,
    )
