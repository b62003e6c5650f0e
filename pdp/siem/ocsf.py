"""OCSF 1.8.0, as one line of JSON in ASCII.

A decision is API Activity (6003) with the profile Security Control; a change is User Access
Management (3005) if it gives or takes a role of a user, otherwise Entity Management (3004).
Source: https://schema.ocsf.io/1.8.0/classes/api_activity, .../user_access, .../entity_management
"""

import json
from typing import Any, Final

from pdp.siem.events import ChangeEvent, DecisionEvent

VERSION: Final = "1.8.0"

_PRODUCT: Final = {"name": "PDP", "vendor_name": "PDP"}
_OTHER: Final = 99
_API_ACTIVITY, _USER_ACCESS, _ENTITY_MANAGEMENT = 6003, 3005, 3004
_ASSIGN = {"create": (1, "Assign Privileges"), "delete": (2, "Revoke Privileges")}
_MANAGE = {"create": (1, "Create"), "update": (3, "Update"), "delete": (4, "Delete")}
_ACCESS_KINDS: Final = frozenset(("grant", "membership"))

_encode = json.JSONEncoder(separators=(",", ":")).encode


def decision_line(event: DecisionEvent) -> str:
    """Returns a decision as API Activity."""
    allowed = event.is_allowed
    metadata: dict[str, Any] = {
        "uid": event.id,
        "version": VERSION,
        "product": _PRODUCT,
        "profiles": ["security_control"],
        "log_name": "decisions",
        "event_code": event.code,
    }
    if event.is_truncated:
        metadata["is_truncated"] = True
    actor: dict[str, Any] = {"app_name": event.caller}
    if event.user_id:
        actor["user"] = user = {"uid": event.user_id}
        if event.organization_id:
            user["org"] = {"uid": event.organization_id}  # type: ignore[assignment]
    if event.session_id:
        actor["session"] = {"uid": event.session_id}
    authorization: dict[str, Any] = {"decision": "ALLOW" if allowed else "DENY"}
    if event.rule_id:
        authorization["policy"] = {"uid": event.rule_id}
    fields: dict[str, Any] = {
        "class_uid": _API_ACTIVITY,
        "class_name": "API Activity",
        "category_uid": 6,
        "category_name": "Application Activity",
        "activity_id": _OTHER,
        "activity_name": event.query or "Check",
        "type_uid": _API_ACTIVITY * 100 + _OTHER,
        "time": event.time,
        "severity_id": 1 if allowed else 2,
        "status_id": 1 if allowed else 2,
        "status_code": event.code,
        "status_detail": event.detail,
        "action_id": 1 if allowed else 2,
        "disposition_id": 1 if allowed else 2,
        "message": event.message,
        "count": event.count,
        "metadata": metadata,
        "actor": actor,
        "api": {
            "operation": event.permission,
            "service": {"name": "PDP"},
            "request": {"uid": event.id},
        },
        "src_endpoint": {"svc_name": event.caller},
        "authorizations": [authorization],
    }
    if event.count > 1:
        fields["start_time"], fields["end_time"] = event.time, event.last_time
    if event.resource_type:
        resource = {"type": event.resource_type, "uid": event.resource_id or "*"}
        if event.resource_organization_id:
            resource["namespace"] = event.resource_organization_id
        fields["resources"] = [resource]
    if event.request:
        method, _, path = event.request.partition(" ")
        fields["http_request"] = {"http_method": method, "url": {"path": path}}
    others = {
        "revision": event.revision,
        "grant_id": event.grant_id,
        "impersonator_id": event.impersonator_id,
        "token_fingerprint": event.token_fingerprint,
        "token_id": event.token_id,
        "source": event.source,
        "reported_by": event.reported_by,
    }
    fields["unmapped"] = {name: value for name, value in others.items() if value}
    return _encode(fields)


def change_line(event: ChangeEvent) -> str:
    """Returns a change as User Access Management or Entity Management."""
    gives_role = event.kind in _ACCESS_KINDS and event.user_id and event.role
    activities = _ASSIGN if gives_role else _MANAGE
    activity, name = activities.get(event.action, (_OTHER, event.action))
    uid = _USER_ACCESS if gives_role else _ENTITY_MANAGEMENT
    fields: dict[str, Any] = {
        "class_uid": uid,
        "class_name": "User Access Management" if gives_role else "Entity Management",
        "category_uid": 3,
        "category_name": "Identity & Access Management",
        "activity_id": activity,
        "activity_name": name,
        "type_uid": uid * 100 + activity,
        "time": event.time,
        "severity_id": 1,
        "status_id": 1,
        "message": event.message,
        "metadata": {
            "uid": event.id,
            "version": VERSION,
            "product": _PRODUCT,
            "log_name": "changes",
            "event_code": f"{event.kind}.{event.action}",
            **({"is_truncated": True} if event.is_truncated else {}),
        },
        "actor": {"app_name": event.author},
        "unmapped": {
            "revision": event.revision,
            "source": event.source,
            "before": event.before,
            "after": event.after,
        },
    }
    if gives_role:
        fields["user"] = {"uid": event.user_id}
        fields["privileges"] = [event.role]
        fields["resources"] = [{"type": event.kind, "uid": event.key}]
    else:
        fields["entity"] = {"type": event.kind, "uid": event.key}
    if event.reason:
        fields["unmapped"]["reason"] = event.reason
    return _encode(fields)
