"""Converts frames to rows of the decision log, and inserts rows."""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Table

from pdp.audit.records import MalformedRecordError
from pdp.audit.segments import Frame, Log
from pdp.database.bulk import insert_into

_CHARACTERS_MAX: Final = 256
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

Row = dict[str, Any]


def filterable(text: str) -> str:
    """Alters a text so that PostgreSQL can store and index it. Filters alter their texts alike."""
    if len(text) <= _CHARACTERS_MAX and text.isascii() and "\0" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text[:_CHARACTERS_MAX])


def payload_of(record: str) -> bytes:
    """Returns the payload of a record's frame, from the record in SQL.

    No process writes a text that is not ASCII: then the digest differs.
    """
    return record.encode("utf-8", "backslashreplace")


def row_key(decision_id: str, reported_by: str | None) -> str:
    """Returns the primary key of a record's row; sorts as the decision id does.

    The key of a reported record includes the reporter: it cannot collide with the record of a
    decision point or of another reporter. A caller's name holds no slash.
    """
    return decision_id if reported_by is None else f"{decision_id}/{reported_by}"


def record_row(frame: Frame, log: Log, reported_by: str | None = None) -> Row:
    """Converts a record to a row.

    Reads only what the columns need. So a record of a newer version, with a reason that this one
    does not know, is shipped too.

    Raises:
        MalformedRecordError: The payload is not a record.
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
            "grant_id": _filterable_or_none(data.get("grant_id")),
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        # From None: the cause would quote the payload.
        raise MalformedRecordError("not a decision record") from None


def _filterable_or_none(text: str | None) -> str | None:
    return None if text is None else filterable(text)


def gap_row(frame: Frame, log: Log) -> Row:
    """Converts a gap to a row. Raises MalformedRecordError."""
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


def insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> bool:
    """Inserts the rows whose key is new; returns whether all were.

    The rows go directly to the driver: in SQLAlchemy, the processing of parameters would take as
    long as the rest of the shipping.
    """
    if not rows:
        return True
    statement = insert_into(connection, table).on_conflict_do_nothing()
    parameters: list[Any] = list(rows)
    if connection.dialect.name == "sqlite":
        names = [column.name for column in table.columns]
        parameters = [tuple(row[name] for name in names) for row in rows]
    sql = str(statement.compile(dialect=connection.dialect))
    return connection.exec_driver_sql(sql, parameters).rowcount == len(rows)
