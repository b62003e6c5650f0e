"""Decision records and the words of their filters, as the command line writes and reads them."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol, TypeVar

import typer

from pdp.cli.output import say, show_table

if TYPE_CHECKING:
    from pdpapi.v1 import core_pb2
    from pdpapi.v1.audit_service_pb2 import DecisionRecord

N_co = TypeVar("N_co", bound=int, covariant=True)

DECISION = "DECISION_"
REASON = "DECISION_REASON_"
_SOURCE = "ANSWER_SOURCE_"
_COLUMNS = ("time", "decision", "reason", "user", "permission", "resource", "rule")


class _Enum(Protocol[N_co]):
    """A generated enum."""

    def items(self) -> Iterable[tuple[str, N_co]]: ...


def member(enum: "_Enum[N_co]", prefix: str, text: str, option: str) -> N_co:
    """The number of an enum's member, written as any output writes it: `PERMISSION_UNKNOWN` of the
    table, `DECISION_REASON_PERMISSION_UNKNOWN` of JSON, in either case of letters."""
    names = {name.removeprefix(prefix): number for name, number in enum.items() if number}
    name = text.upper().removeprefix(prefix)
    if name in names:
        return names[name]
    near = get_close_matches(name, names, 1)
    hint = f"; did you mean {near[0]}?" if near else f" of {', '.join(names)}"
    raise typer.BadParameter(f"{text!r} is not one{hint}", param_hint=option)


def reason_name(reason: "core_pb2.DecisionReason.ValueType") -> str:
    """Returns the name of a decision's reason, e.g. TOKEN_EXPIRED."""
    from pdpapi.v1 import core_pb2

    return core_pb2.DecisionReason.Name(reason).removeprefix(REASON)


def print_table(records: "Sequence[DecisionRecord]", *, heading: bool = True) -> None:
    """Prints a row for each record."""
    from pdpapi.v1 import core_pb2

    sources = any(record.source or record.reported_by for record in records)
    requests = any(record.request for record in records)
    queries = any(record.query for record in records)
    folded = any(record.occurrences > 1 for record in records)
    rows = []
    for record in records:
        resource, fingerprint = record.resource, record.token_fingerprint
        source = core_pb2.AnswerSource.Name(record.source).removeprefix(_SOURCE)
        rows.append(
            (
                _time(record),
                core_pb2.Decision.Name(record.decision).removeprefix(DECISION),
                reason_name(record.reason),
                _erased(record) or record.actor.user_id or (fingerprint and f"token {fingerprint}"),
                record.permission,
                f"{resource.type}:{resource.id}" if resource.type else "",
                record.rule_id,
                *((str(record.occurrences),) if folded else ()),
                *((record.request,) if requests else ()),
                *((record.query,) if queries else ()),
                *((source if record.source else "", record.reported_by) if sources else ()),
            )
        )
    columns = (
        *_COLUMNS,
        *("times",) * folded,
        *("request",) * requests,
        *("query",) * queries,
        *("source", "reported by") * sources,
    )
    show_table(columns, rows, heading=heading)


def decision_cells(record: "DecisionRecord") -> Sequence[str]:
    """Returns time, decision, reason, user, impersonator, organization, permission, resource, rule,
    grant and id of a decision."""
    from pdpapi.v1 import core_pb2

    actor, resource = record.actor, record.resource
    return (
        _time(record),
        core_pb2.Decision.Name(record.decision).removeprefix(DECISION),
        reason_name(record.reason),
        _erased(record) or actor.user_id,
        actor.impersonator_id,
        actor.organization_id,
        record.permission,
        f"{resource.type}:{resource.id}" if resource.type else "",
        record.rule_id,
        record.grant_id,
        record.decision_id,
    )


def print_fields(record: "DecisionRecord") -> None:
    """Prints a line for each field that says something."""
    from pdpapi.v1 import core_pb2

    actor, resource = record.actor, record.resource
    source = core_pb2.AnswerSource.Name(record.source).removeprefix(_SOURCE)
    fields = {
        "decision_id": record.decision_id,
        "time": _time(record),
        "times": str(record.occurrences) if record.occurrences > 1 else "",
        "decision": core_pb2.Decision.Name(record.decision).removeprefix(DECISION),
        "reason": reason_name(record.reason),
        "permission": record.permission,
        "resource": f"{resource.type}:{resource.id}" if resource.type else "",
        "resource_organization_id": record.resource_organization_id,
        "user": actor.user_id,
        "erased": _erased(record) and record.erased_at.ToDatetime().isoformat() + "Z",
        "organization": actor.organization_id,
        "session": actor.session_id,
        "impersonator": actor.impersonator_id,
        "rule": record.rule_id,
        "grant": record.grant_id,
        "revision": str(record.revision or ""),
        "caller": record.caller,
        "request": record.request,
        "query": record.query,
        "token_fingerprint": record.token_fingerprint,
        "token_id": record.token_id,
        "source": source if record.source else "",
        "reported_by": record.reported_by,
    }
    for name, value in fields.items():
        if value:
            say(f"{name}: {value}")


def _erased(record: "DecisionRecord") -> str:
    return "erased" if record.HasField("erased_at") else ""


def _time(record: "DecisionRecord") -> str:
    return record.decided_at.ToDatetime().isoformat(timespec="milliseconds") + "Z"
