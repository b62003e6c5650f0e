"""`pdp audit changes`: who changed what."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.connection import connects
from pdp.cli.decisions import set_times
from pdp.cli.listing import PAGE_ITEMS, AsJson, Limit, pages_of, print_records
from pdp.cli.output import show_table
from pdp.cli.profiles import Connection
from pdp.cli.records import member
from pdp.cli.remote import connected, method_of

if TYPE_CHECKING:
    from pdpapi.v1 import audit_service_pb2 as pb
    from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub

_SOURCE = "CHANGE_SOURCE_"
_COLUMNS = ("time", "revision", "by", "change", "reason")


@connects
def list_changes(
    kind: Annotated[str, typer.Option(help="e.g. grant, role, user, session.")] = "",
    entity: Annotated[
        list[str] | None,
        typer.Option(help="Key of the entity; once for each part: organization, user."),
    ] = None,
    caller: Annotated[str, typer.Option(help="The caller or account that made the change.")] = "",
    source: Annotated[str, typer.Option(help="e.g. API, COMMAND, CLERK_WEBHOOK.")] = "",
    since: Annotated[datetime | None, typer.Option(help="Recorded at or after (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Recorded before (UTC).")] = None,
    limit: Limit = None,
    as_json: AsJson = False,
    *,
    connection: Connection,
) -> None:
    """Lists changes of policy and facts, newest first."""
    from pdpapi.v1 import audit_service_pb2 as pb
    from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub

    query = pb.ListChangesRequest(kind=kind, key=entity or (), caller=caller)
    set_times(query, since, until)
    if source:
        query.source = member(pb.ChangeSource, _SOURCE, source, "--source")
    with connected(connection) as channel:
        found = newest(AuditServiceStub(channel), query, connection)
        print_records(found, _print_table, limit, as_json=as_json)


def newest(
    stub: "AuditServiceStub", query: "pb.ListChangesRequest", connection: Connection
) -> "Iterator[pb.AdministrationRecord]":
    """All that the query finds, newest first, page by page as it is read."""
    query.page_size = PAGE_ITEMS
    ask = method_of(stub.ListChanges, connection)
    return (record for page in pages_of(ask, query) for record in page.changes)


def _print_table(records: "Sequence[pb.AdministrationRecord]") -> None:
    show_table(_COLUMNS, [_row(record) for record in records], heading=True)


def _row(record: "pb.AdministrationRecord") -> tuple[str, ...]:
    return (
        record.recorded_at.ToDatetime().isoformat(sep=" ", timespec="milliseconds"),
        str(record.revision),
        _author(record),
        _change(record),
        record.reason,
    )


def _author(record: "pb.AdministrationRecord") -> str:
    from pdpapi.v1 import audit_service_pb2 as pb

    source = pb.ChangeSource.Name(record.source).removeprefix(_SOURCE).lower()
    origin = [source]
    if record.caller:
        origin.append(record.caller)
    if record.message_ids:
        origin.append(", ".join(record.message_ids))
    if record.sync_run:
        origin.append(f"run {record.sync_run}")
    return " ".join(origin)


def _change(record: "pb.AdministrationRecord") -> str:
    from google.protobuf.json_format import MessageToDict

    name = f"{record.kind} {'/'.join(record.key)}"
    before = MessageToDict(record.before) if record.HasField("before") else None
    after = MessageToDict(record.after) if record.HasField("after") else None
    if before is None:
        return f"create {name}"
    if after is None:
        return f"delete {name}"
    changed = [
        f"{field} {json.dumps(before.get(field))} -> {json.dumps(after.get(field))}"
        for field in sorted({*before, *after})
        if before.get(field) != after.get(field)
    ]
    return f"update {name}: {', '.join(changed) or 'a redacted value'}"
