"""Frames as rows of the decision log."""

import json
import re
from typing import Any, Final

from pdp.audit.records import MalformedRecordError
from pdp.audit.segments import Frame, Log

_CHARACTERS_MAX: Final = 256
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

Row = dict[str, Any]


def filterable(text: str) -> str:
    """A text as the columns that serve to filter hold it: without what PostgreSQL cannot store,
    and short enough for an index. Rows are found by the same alteration."""
    if len(text) <= _CHARACTERS_MAX and text.isascii() and "\0" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text[:_CHARACTERS_MAX])


def row_key(decision_id: str, reported_by: str | None) -> str:
    """The primary key of a record's row. What a caller reports stands under its own name: it can
    neither be in the way of a decision point's record nor of what another one reports. Sorts as
    the decision id does; no name of a caller holds a slash."""
    return decision_id if reported_by is None else f"{decision_id}/{reported_by}"


def record_row(frame: Frame, log: Log, reported_by: str | None = None) -> Row:
    """The row of a record. Raises MalformedRecordError.

    Reads no more of the record than the columns need: a record of a newer release, whose reason
    this one does not know, is shipped all the same.
    """
    try:
        data = json.loads(frame.payload)
        actor, resource = data.get("actor") or {}, data.get("resource") or {}
        return {
            "decision_id": row_key(filterable(data["decision_id"]), reported_by),
            "decided_at": float(data["decided_at"]),
            "effect": filterable(data["effect"]),
            "reason": filterable(data["reason"]),
            "permission": filterable(data["permission"]),
            "caller": filterable(data["caller"]),
            "user_id": _filterable_or_none(actor.get("user_id")),
            "organization_id": _filterable_or_none(actor.get("organization_id")),
            "resource_type": _filterable_or_none(resource.get("type")),
            "resource_id": _filterable_or_none(resource.get("id")),
            "record": frame.payload.decode("ascii"),
            "reported_by": reported_by,
            "origin": log.origin,
            "log_id": log.log_id,
            "segment": frame.after.sequence,
            "position": frame.position,
            "digest": frame.after.digest,
            "occurrences": 1,
            "last_decided_at": None,
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        # Without its cause: that would quote the payload.
        raise MalformedRecordError("not a decision record") from None


def _filterable_or_none(text: str | None) -> str | None:
    return None if text is None else filterable(text)


def gap_row(frame: Frame, log: Log) -> Row:
    """The row of a gap. Raises MalformedRecordError."""
    try:
        gap = json.loads(frame.payload)
        dropped, noticed_at = int(gap["dropped"]), float(gap["noticed_at"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise MalformedRecordError("not a gap") from None
    return {
        "origin": log.origin,
        "log_id": log.log_id,
        "segment": frame.after.sequence,
        "position": frame.position,
        "noticed_at": noticed_at,
        "dropped": dropped,
        "digest": frame.after.digest,
    }
