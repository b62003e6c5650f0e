"""Decision records for tests."""

import itertools
from dataclasses import replace
from typing import Any

from pdp.audit import DecisionRecord, new_decision_id
from pdp.model import Actor, Effect, Reason, ResourceRef

_numbers = itertools.count()


def decision_record(**changes: Any) -> DecisionRecord:
    """A denial, other than all before it, with the fields that `changes` names."""
    number = next(_numbers)
    record = DecisionRecord(
        decision_id=new_decision_id(),
        decided_at=1_790_000_000.0 + number / 1000,
        effect=Effect.DENY,
        reason=Reason.PERMISSION_NOT_GRANTED,
        permission="course:edit",
        caller="courses",
        revision=7,
        token_fingerprint="0123456789abcdef",
        actor=Actor("user_1", "sess_1", "org_1"),
        token_id=f"jti_{number}",
        resource=ResourceRef("course", "1"),
        resource_organization_id="org_1",
    )
    return replace(record, **changes)
