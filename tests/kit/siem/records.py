"""Decision records as a server sends them, ordinary and hostile."""

from typing import Any

from pdpapi.v1 import audit_service_pb2 as pb
from pdpapi.v1 import core_pb2

HOSTILE = (
    "a\nb",
    "a\r\n<13>1 - - forged - - - CEF:0|x|y",
    "a|b",
    "cs1=forged act=allowed",
    "a\\",
    "\\n",
    "a\x00b\x1b[2J",
    "\u2028\u202e\x85",
    'quote " and {"a": 1}',
    "é 💥",
    "]",
)


def record(**fields: Any) -> pb.DecisionRecord:
    """A denial of a user's request, with other values for some fields."""
    made = pb.DecisionRecord(
        decision_id="0199d1a4-0000-7000-8000-000000000001",
        decision=core_pb2.DECISION_DENY,
        denial_kind=core_pb2.DENIAL_KIND_FORBIDDEN,
        reason=core_pb2.DECISION_REASON_PERMISSION_NOT_GRANTED,
        actor=core_pb2.Actor(user_id="user_1", session_id="sess_1", organization_id="org_1"),
        permission="course:edit",
        resource=core_pb2.ResourceRef(type="course", id="c1"),
        resource_organization_id="org_1",
        caller="courses",
        revision=7,
        token_fingerprint="0123456789abcdef",
        occurrences=1,
    )
    made.decided_at.FromMilliseconds(1_796_040_000_500)
    made.MergeFrom(pb.DecisionRecord(**fields))
    return made


def hostile(text: str) -> pb.DecisionRecord:
    """A record with this text in each free field."""
    return record(
        actor=core_pb2.Actor(
            user_id=text, session_id=text, organization_id=text, impersonator_id=text
        ),
        permission=text,
        resource=core_pb2.ResourceRef(type=text, id=text),
        resource_organization_id=text,
        caller=text,
        rule_id=text,
        grant_id=text,
        token_fingerprint=text,
        token_id=text,
        reported_by=text,
        request=f"GET {text}",
        query=text,
    )
