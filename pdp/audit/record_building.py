"""Builds the records of decisions."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from pdp.audit.records import DecisionRecord
from pdp.model import (
    Decision,
    Effect,
    HttpRequest,
    Question,
    RefusedToken,
    ResourceRef,
    VerifiedToken,
)

REQUEST_CHARACTERS_MAX: Final = 512
_NOT_PLAIN: Final = re.compile(r"[^\x21-\x7e]")


def build_records(
    effect: Effect,
    token: VerifiedToken | RefusedToken,
    questions: Sequence[Question],
    decisions: Sequence[Decision],
    decision_ids: Sequence[str],
    *,
    caller: str,
    revision: int,
    decided_at: float,
    request: HttpRequest | None = None,
    inputs: Sequence[str] = (),
) -> Iterator[DecisionRecord]:
    """Builds records of the decisions with this effect, in order, each when it is asked for.

    Args:
        effect: Decisions with another effect are skipped.
        token: The token of the request.
        questions: `questions[i]` was answered by `decisions[i]` under `decision_ids[i]`.
        decisions: The answers.
        decision_ids: UUIDv7 of each answer.
        caller: Name of the backend that sent the request.
        revision: The revision of the decisions.
        decided_at: Seconds since 1970-01-01 UTC.
        request: The HTTP request, if its route chose the question.
        inputs: What the decisions read, if that is recorded: one for each.
    """
    text = None if request is None else _text(request)
    for index, (question, decision, decision_id) in enumerate(
        zip(questions, decisions, decision_ids, strict=True)
    ):
        if decision.effect is not effect:
            continue
        resource = question.resource
        yield DecisionRecord(
            decision_id=decision_id,
            decided_at=decided_at,
            effect=effect,
            reason=decision.reason,
            permission=question.permission,
            caller=caller,
            revision=revision,
            token_fingerprint=token.fingerprint,
            actor=token.actor,
            token_id=token.token_id,
            resource=None if resource is None else ResourceRef(resource.type, resource.id),
            resource_organization_id=decision.resource_organization_id,
            rule_id=decision.rule_id,
            grant_id=decision.grant_id,
            request=text,
            inputs=inputs[index] if inputs else None,
        )


def _text(request: HttpRequest) -> str:
    """Formats method and path: without the query, as one line of printable ASCII."""
    path = request.path.partition("?")[0]
    method, path = (
        _NOT_PLAIN.sub(lambda found: f"\\x{ord(found[0]):02x}", part)
        for part in (request.method, path)
    )
    text = f"{method} {path}"
    if len(text) > REQUEST_CHARACTERS_MAX:
        return text[: REQUEST_CHARACTERS_MAX - 3] + "..."
    return text
