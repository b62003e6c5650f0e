"""Elastic Common Schema 8.17, as one line of JSON in ASCII.

By the rules of ECS, `event.type` states whether something was allowed or denied, and
`event.outcome` whether the PDP did its work: that of a denial is `success`. Fields that ECS does
not have are below `pdp`.
Source: https://www.elastic.co/docs/reference/ecs/ecs-using-categorization-fields
"""

import json
from typing import Any, Final

from pdp.siem.events import ChangeEvent, DecisionEvent, rfc3339

VERSION: Final = "8.17.0"

_TYPES: Final = {"create": "creation", "update": "change", "delete": "deletion"}
_USER_KINDS: Final = frozenset(("user", "grant", "membership", "session", "clerk_user"))

_encode = json.JSONEncoder(separators=(",", ":")).encode


def decision_line(event: DecisionEvent) -> str:
    """Returns a decision: category `api`, type `allowed` or `denied`."""
    described: dict[str, Any] = {
        "kind": "event",
        "category": ["api"],
        "type": ["access", event.action],
        "outcome": "success",
        "action": event.query or "Check",
        "code": event.code,
        "reason": event.detail,
        "id": event.id,
        "module": "pdp",
        "dataset": "pdp.decisions",
    }
    if event.count > 1:
        described["start"], described["end"] = rfc3339(event.time), rfc3339(event.last_time)
    own = {
        "permission": event.permission,
        "caller": event.caller,
        "resource_type": event.resource_type,
        "resource_id": event.resource_id,
        "resource_organization_id": event.resource_organization_id,
        "session_id": event.session_id,
        "impersonator_id": event.impersonator_id,
        "grant_id": event.grant_id,
        "revision": event.revision,
        "token_fingerprint": event.token_fingerprint,
        "token_id": event.token_id,
        "source": event.source,
        "reported_by": event.reported_by,
        "count": event.count,
        "truncated": event.is_truncated,
    }
    fields: dict[str, Any] = {
        "@timestamp": rfc3339(event.time),
        "ecs": {"version": VERSION},
        "event": described,
        "message": event.message,
        "service": {"name": "pdp", "type": "pdp"},
        "pdp": {name: value for name, value in own.items() if value},
    }
    if event.user_id:
        fields["user"] = {"id": event.user_id}
        fields["related"] = {
            "user": [name for name in (event.user_id, event.impersonator_id) if name]
        }
    if event.organization_id:
        fields["organization"] = {"id": event.organization_id}
    if event.rule_id:
        fields["rule"] = {"id": event.rule_id}
    if event.request:
        method, _, path = event.request.partition(" ")
        fields["http"] = {"request": {"method": method}}
        fields["url"] = {"path": path}
    return _encode(fields)


def change_line(event: ChangeEvent) -> str:
    """Returns a change: category `iam` or `configuration`."""
    about_user = event.kind in _USER_KINDS
    fields: dict[str, Any] = {
        "@timestamp": rfc3339(event.time),
        "ecs": {"version": VERSION},
        "event": {
            "kind": "event",
            "category": ["iam" if about_user else "configuration"],
            "type": [*(["user"] if about_user else []), _TYPES[event.action]],
            "outcome": "success",
            "action": f"{event.action} {event.kind}",
            "reason": event.reason,
            "id": event.id,
            "module": "pdp",
            "dataset": "pdp.changes",
        },
        "message": event.message,
        "service": {"name": "pdp", "type": "pdp"},
        "user": {"name": event.author},
        "pdp": {
            "kind": event.kind,
            "key": event.key,
            "source": event.source,
            "revision": event.revision,
            "before": event.before,
            "after": event.after,
        },
    }
    if event.user_id:
        fields["user"]["target"] = {"id": event.user_id}
        fields["related"] = {"user": [event.user_id]}
    return _encode(fields)
