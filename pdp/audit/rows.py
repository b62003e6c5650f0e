"""Frames as rows of the decision log."""

import json
import re
from typing import Any, Final

from pdp.audit.records import MalformedRecordError, decode
from pdp.audit.segments import Frame, Header

_CHARACTERS_MAX: Final = 256
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

Row = dict[str, Any]


def filterable(text: str) -> str:
    """A text as the columns that serve to filter hold it: without what PostgreSQL cannot store,
    and short enough for an index. Rows are found by the same alteration."""
    return _UNSTORABLE.sub("\ufffd", text[:_CHARACTERS_MAX])


def record_row(frame: Frame, header: Header) -> Row:
    """The row of a record. Raises MalformedRecordError."""
    record = decode(frame.payload)
    actor, resource = record.actor, record.resource
    return {
        "decision_id": filterable(record.decision_id),
        "decided_at": record.decided_at,
        "effect": record.effect.name,
        "reason": record.reason.name,
        "permission": filterable(record.permission),
        "caller": filterable(record.caller),
        "user_id": None if actor is None else filterable(actor.user_id),
        "organization_id": None
        if actor is None or actor.organization_id is None
        else filterable(actor.organization_id),
        "resource_type": None if resource is None else filterable(resource.type),
        "resource_id": None if resource is None else filterable(resource.id),
        "record": frame.payload.decode("ascii"),
        "origin": header.origin,
        "log_id": header.log_id,
        "segment": header.sequence,
        "position": frame.position,
        "digest": frame.after.digest,
    }


def gap_row(frame: Frame, header: Header) -> Row:
    """The row of a gap. Raises MalformedRecordError."""
    try:
        gap = json.loads(frame.payload)
        dropped, noticed_at = int(gap["dropped"]), float(gap["noticed_at"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise MalformedRecordError("not a gap") from None
    return {
        "origin": header.origin,
        "log_id": header.log_id,
        "segment": header.sequence,
        "position": frame.position,
        "noticed_at": noticed_at,
        "dropped": dropped,
        "digest": frame.after.digest,
    }
