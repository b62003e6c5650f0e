"""`pdp audit export`: decisions in a format of a SIEM."""

from enum import StrEnum
from typing import Annotated

import typer

from pdp.cli import decisions
from pdp.cli.connection import connects
from pdp.cli.output import emit
from pdp.cli.profiles import Connection
from pdp.cli.remote import connected

LINES_AT_ONCE = 100


class FormatName(StrEnum):
    """The formats, for the parser of arguments: `pdp.siem.formats` takes long to import."""

    OCSF = "ocsf"
    ECS = "ecs"
    CEF = "cef"
    JSON = "json"


@connects
def export(
    format_: Annotated[FormatName, typer.Option("--format", help="The format of each line.")],
    user: decisions.User = "",
    permission: decisions.Permission = "",
    resource: decisions.Resource = "",
    decision: decisions.Decision = "",
    reason: decisions.Reason = "",
    organization: decisions.Organization = "",
    caller: decisions.Caller = "",
    reported_by: decisions.ReportedBy = "",
    since: decisions.Since = None,
    until: decisions.Until = None,
    *,
    connection: Connection,
) -> None:
    """Prints decisions for a SIEM, newest first, one on each line."""
    from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub

    from pdp.siem.events import TEXT_CHARACTERS_MAX
    from pdp.siem.formats import FORMATS

    query = decisions.query_of(
        user,
        permission,
        resource,
        decision,
        reason,
        organization,
        caller,
        reported_by,
        since,
        until,
    )
    line = FORMATS[format_.value]["decision"]
    lines: list[str] = []
    with connected(connection) as channel:
        for record in decisions.newest(AuditServiceStub(channel), query, connection):
            lines.append(line(record, TEXT_CHARACTERS_MAX))
            if len(lines) == LINES_AT_ONCE:
                emit("\n".join(lines) + "\n")
                lines.clear()
        if lines:
            emit("\n".join(lines) + "\n")
