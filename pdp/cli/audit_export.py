"""`pdp audit export`: decisions or changes in a format of a SIEM."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdp.cli import changes, decisions
from pdp.cli.connection import connects
from pdp.cli.output import emit
from pdp.cli.profiles import Connection
from pdp.cli.remote import connected

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdp.siem.events import Record

LINES_AT_ONCE = 100


class FormatName(StrEnum):
    """The formats, for the parser of arguments: `pdp.siem.formats` takes long to import."""

    OCSF = "ocsf"
    ECS = "ecs"
    CEF = "cef"
    JSON = "json"


@connects
@decisions.filters_decisions
def export(
    format_: Annotated[FormatName, typer.Option("--format", help="The format of each line.")],
    query: Any,
    only_changes: Annotated[
        bool,
        typer.Option(
            "--changes",
            help="Changes of policy and facts instead; with --caller, --since and --until only.",
        ),
    ] = False,
    *,
    connection: Connection,
) -> None:
    """Prints decisions or changes for a SIEM, newest first, one on each line."""
    from pdpapi.v1.audit_service_pb2 import ListChangesRequest
    from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub

    from pdp.siem.events import TEXT_CHARACTERS_MAX
    from pdp.siem.formats import line_of

    filters = {field.name: value for field, value in query.ListFields()}
    if only_changes and filters.keys() - {"caller", "not_before", "before"}:
        raise typer.BadParameter("--changes goes with --caller, --since and --until only")
    line = line_of(format_.value)
    lines: list[str] = []
    with connected(connection) as channel:
        stub = AuditServiceStub(channel)
        found: Iterable[Record] = (
            changes.newest(stub, ListChangesRequest(**filters), connection)
            if only_changes
            else decisions.newest(stub, query, connection)
        )
        for record in found:
            lines.append(line(record, TEXT_CHARACTERS_MAX))
            if len(lines) == LINES_AT_ONCE:
                emit("\n".join(lines) + "\n")
                lines.clear()
        if lines:
            emit("\n".join(lines) + "\n")
