"""Derives the ids of rules and grants that have none from their content.

The same content always gives the same id: repeating a create finds ALREADY_EXISTS, and applying a
document again finds nothing to change.
"""

import hashlib

from pdp.limits import IDENTIFIER_CHARACTERS_MAX
from pdp.model import (
    Everywhere,
    Grant,
    InOrganization,
    OnResource,
    Rule,
    ToOrganizationRole,
    ToUser,
)

_SUFFIX_ROOM = 16
"""Characters reserved for a suffix that distinguishes rules whose ids would be equal."""


def derived_rule_id(rule: Rule) -> str:
    """`ROLE.allow.course:edit`, with `.` and 8 digits of the condition's SHA-256 if it has one."""
    text = f"{rule.role}.{rule.effect.value}.{rule.permission}"
    if rule.condition:
        text = f"{text}.{hashlib.sha256(rule.condition.encode()).hexdigest()[:8]}"
    room = IDENTIFIER_CHARACTERS_MAX - _SUFFIX_ROOM
    if len(text) > room:
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        text = f"{text[: room - 17]}.{digest}"
    return text


def derived_grant_id(grant: Grant) -> str:
    """`g-` and 16 digits of the SHA-256 over the grant's fields, each prefixed with its length
    (so that no two lists of fields are the same bytes)."""
    fields = [grant.role]
    match grant.subject:
        case ToUser(user_id):
            fields += ["user", user_id]
        case ToOrganizationRole(organization_role):
            fields += ["organization_role", organization_role]
    match grant.scope:
        case Everywhere():
            fields += ["everywhere"]
        case InOrganization(organization_id):
            fields += ["organization", organization_id]
        case OnResource(resource):
            fields += ["resource", resource.type, resource.id]
    fields += ["" if t is None else repr(t) for t in (grant.not_before, grant.expires_at)]
    encoded = [field.encode() for field in fields]
    content = b"".join(len(field).to_bytes(8, "big") + field for field in encoded)
    return f"g-{hashlib.sha256(content).hexdigest()[:16]}"
