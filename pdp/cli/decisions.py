"""The filters of commands that read decisions, and pages of what they find, newest first."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.listing import PAGE_ITEMS, pages_of
from pdp.cli.profiles import Connection
from pdp.cli.records import DECISION, REASON, member
from pdp.cli.remote import method_of

if TYPE_CHECKING:
    from pdpapi.v1 import audit_service_pb2 as pb
    from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub

User = Annotated[str, typer.Option(help="Clerk user id.")]
Permission = Annotated[str, typer.Option(help="Exact permission.")]
Resource = Annotated[str, typer.Option(help="TYPE or TYPE:ID.")]
Decision = Annotated[str, typer.Option(help="ALLOW or DENY.")]
Reason = Annotated[str, typer.Option(help="e.g. TOKEN_EXPIRED.")]
Organization = Annotated[str, typer.Option(help="The actor's active organization.")]
Caller = Annotated[str, typer.Option(help="The backend that asked.")]
ReportedBy = Annotated[str, typer.Option(help="The sidecar that reported it.")]
Since = Annotated[datetime | None, typer.Option(help="Decided at or after (UTC).")]
Until = Annotated[datetime | None, typer.Option(help="Decided before (UTC).")]


def query_of(
    user: str,
    permission: str,
    resource: str,
    decision: str,
    reason: str,
    organization: str,
    caller: str,
    reported_by: str,
    since: datetime | None,
    until: datetime | None,
) -> "pb.ListDecisionsRequest":
    """The query of these options. Raises typer.BadParameter."""
    from pdpapi.v1 import audit_service_pb2 as pb
    from pdpapi.v1 import core_pb2

    query = pb.ListDecisionsRequest(
        user_id=user,
        permission=permission,
        organization_id=organization,
        caller=caller,
        reported_by=reported_by,
    )
    if decision:
        query.decision = member(core_pb2.Decision, DECISION, decision, "--decision")
    if reason:
        query.reason = member(core_pb2.DecisionReason, REASON, reason, "--reason")
    if resource:
        query.resource.type, _, query.resource.id = resource.partition(":")
    if since is not None:
        query.not_before.FromDatetime(since)
    if until is not None:
        query.before.FromDatetime(until)
    return query


def newest(
    stub: "AuditServiceStub", query: "pb.ListDecisionsRequest", connection: Connection
) -> "Iterator[pb.DecisionRecord]":
    """All that the query finds, newest first, page by page as it is read."""
    request = type(query)(page_size=PAGE_ITEMS)
    request.MergeFrom(query)
    ask = method_of(stub.ListDecisions, connection)
    return (record for page in pages_of(ask, request) for record in page.decisions)
