"""The table of formats: for each, how a record of each kind becomes a line.

A new kind of record needs a function in each row, and an event in `events.py`.
"""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from pdpapi.v1.audit_service_pb2 import AdministrationRecord

from pdp.siem import cef, ecs, ocsf
from pdp.siem.events import (
    SECONDS_MAX,
    SECONDS_MIN,
    TEXT_CHARACTERS_MAX,
    change_event,
    decision_event,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

Format = Literal["ocsf", "ecs", "cef", "json"]
Kind = Literal["decision", "change"]
Line = Callable[[Any, int], str]
"""(record, longest text in characters) -> a line without its end."""


def json_line(record: "Message", _: int = TEXT_CHARACTERS_MAX) -> str:
    """Returns the message as JSON in ASCII, complete: as `pdp audit list --json` prints it.

    A time that JSON of protobuf cannot hold (before the year 1, after 9999) is absent, and
    `times_out_of_range` has it instead: {"decided_at": {"seconds": "253402300800", "nanos": 0}}.
    """
    odd = {
        field.name: value
        for field, value in record.ListFields()
        if isinstance(value, Timestamp) and not SECONDS_MIN <= value.seconds <= SECONDS_MAX
    }
    if not odd:
        return json.dumps(MessageToDict(record, preserving_proto_field_name=True))
    rest = type(record)()
    rest.CopyFrom(record)
    for name in odd:
        rest.ClearField(name)
    times = {name: {"seconds": str(at.seconds), "nanos": at.nanos} for name, at in odd.items()}
    fields = MessageToDict(rest, preserving_proto_field_name=True)
    return json.dumps(fields | {"times_out_of_range": times})


FORMATS: Final[Mapping[Format, Mapping[Kind, Line]]] = {
    "ocsf": {
        "decision": lambda record, limit: ocsf.decision_line(decision_event(record, limit)),
        "change": lambda record, limit: ocsf.change_line(change_event(record, limit)),
    },
    "ecs": {
        "decision": lambda record, limit: ecs.decision_line(decision_event(record, limit)),
        "change": lambda record, limit: ecs.change_line(change_event(record, limit)),
    },
    "cef": {
        "decision": lambda record, limit: cef.decision_line(decision_event(record, limit)),
        "change": lambda record, limit: cef.change_line(change_event(record, limit)),
    },
    "json": {"decision": json_line, "change": json_line},
}


def line_of(format_: Format) -> Line:
    """Returns the function of a format for records of every kind."""
    decision, change = FORMATS[format_]["decision"], FORMATS[format_]["change"]

    def line(record: Any, limit: int) -> str:
        return (change if isinstance(record, AdministrationRecord) else decision)(record, limit)

    return line
