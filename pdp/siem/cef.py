r"""Common Event Format, version 0, as one line of text.

In the header, backslash and pipe are escaped; in the extension, backslash, equals sign, line feed
and carriage return. Everything else that does not print becomes an escape such as `\x1b`, with its
backslash escaped, so that no text can end a line or control a terminal.
Source: ArcSight Common Event Format, Implementation Standard, version 25.
"""

import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Final

from pdp.siem.events import ChangeEvent, DecisionEvent

_SPECIAL_IN_HEADER: Final = re.compile(r"[\\|]|[^ -~]")
_SPECIAL: Final = re.compile(r"[\\=]|[^ -~]")
_ESCAPES: Final = {"\\": "\\\\", "=": "\\=", "|": "\\|", "\n": "\\n", "\r": "\\r"}
_HEADER_ESCAPES: Final = {"\\": "\\\\", "|": "\\|"}
_START: Final = f"CEF:0|PDP|PDP|{version('pdp')}"


def decision_line(event: DecisionEvent) -> str:
    """Returns a decision. Its event class id is the reason, its severity 3 or 5 of 10."""
    method, _, path = event.request.partition(" ")
    return _line(
        event.code,
        f"Decision {event.action}",
        3 if event.is_allowed else 5,
        {
            "rt": str(event.time),
            "externalId": event.id,
            "cat": "decision",
            "act": event.action,
            "outcome": "success" if event.is_allowed else "failure",
            "reason": event.detail,
            "cnt": str(event.count),
            "start": str(event.time),
            "end": str(event.last_time),
            "suid": event.user_id,
            "sourceServiceName": event.caller,
            "requestMethod": method,
            "request": path,
            "cs1Label": "permission",
            "cs1": event.permission,
            "cs2Label": "resource",
            "cs2": ":".join(filter(None, (event.resource_type, event.resource_id))),
            "cs3Label": "rule",
            "cs3": event.rule_id,
            "cs4Label": "organization",
            "cs4": event.organization_id,
            "cs5Label": "session",
            "cs5": event.session_id,
            "cs6Label": "impersonator",
            "cs6": event.impersonator_id,
            "flexString1Label": "tokenFingerprint",
            "flexString1": event.token_fingerprint,
            "flexString2Label": "reportedBy",
            "flexString2": event.reported_by,
            "cn1Label": "revision",
            "cn1": str(event.revision),
        },
    )


def change_line(event: ChangeEvent) -> str:
    """Returns a change. Its event class id is the kind and the action: `grant.create`."""
    return _line(
        f"{event.kind}.{event.action}",
        f"Change: {event.action} {event.kind}",
        4,
        {
            "rt": str(event.time),
            "externalId": event.id,
            "cat": "change",
            "act": event.action,
            "outcome": "success",
            "reason": event.reason,
            "suser": event.author,
            "duid": event.user_id,
            "cs1Label": "entity",
            "cs1": f"{event.kind}/{event.key}",
            "cs2Label": "source",
            "cs2": event.source,
            "cs3Label": "role",
            "cs3": event.role,
            "cs4Label": "before",
            "cs4": event.before,
            "cs5Label": "after",
            "cs5": event.after,
            "cn1Label": "revision",
            "cn1": str(event.revision),
        },
    )


def _line(class_id: str, name: str, severity: int, extension: Mapping[str, str]) -> str:
    """Builds a line. Leaves out empty fields, with their labels."""
    pairs = [
        f"{key}={_value(text)}"
        for key, text in extension.items()
        if text and (not key.endswith("Label") or extension[key.removesuffix("Label")])
    ]
    head = f"{_START}|{_header(class_id)}|{_header(name)}|{severity}|"
    return head + " ".join(pairs)


def _header(text: str) -> str:
    return _SPECIAL_IN_HEADER.sub(lambda found: _escaped(found[0], _HEADER_ESCAPES), text)


def _value(text: str) -> str:
    return _SPECIAL.sub(lambda found: _escaped(found[0], _ESCAPES), text)


def _escaped(character: str, known: Mapping[str, str]) -> str:
    if character in known:
        return known[character]
    return character if character.isprintable() else repr(character)[1:-1].replace("\\", "\\\\")
