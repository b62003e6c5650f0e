"""Filters of the commands that read decisions, and the pages of their results, newest first."""

import inspect
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pdp.cli.listing import PAGE_ITEMS, pages_of
from pdp.cli.options import with_options
from pdp.cli.profiles import Connection
from pdp.cli.records import DECISION, REASON, member
from pdp.cli.remote import method_of

if TYPE_CHECKING:
    from pdpapi.v1 import audit_service_pb2 as pb
    from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub

R = TypeVar("R")


def filters_decisions(command: Callable[..., R]) -> Callable[..., R]:
    """Gives a command the filters of decisions, which it takes as one argument, `query`."""
    filters = list(inspect.signature(_query_of).parameters.values())
    return with_options(command, "query", filters, _query_of)


def _query_of(
    user: Annotated[str, typer.Option(help="Clerk user id.")] = "",
    permission: Annotated[str, typer.Option(help="Exact permission.")] = "",
    resource: Annotated[str, typer.Option(help="TYPE or TYPE:ID.")] = "",
    decision: Annotated[str, typer.Option(help="ALLOW or DENY.")] = "",
    reason: Annotated[str, typer.Option(help="e.g. TOKEN_EXPIRED.")] = "",
    organization: Annotated[str, typer.Option(help="The actor's active organization.")] = "",
    caller: Annotated[str, typer.Option(help="The backend that asked.")] = "",
    reported_by: Annotated[str, typer.Option(help="The sidecar that reported it.")] = "",
    since: Annotated[datetime | None, typer.Option(help="Decided at or after (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Decided before (UTC).")] = None,
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
    set_times(query, since, until)
    return query


def set_times(query: Any, since: datetime | None, until: datetime | None) -> None:
    """Limits a query of records to those since a time and before another."""
    if since is not None:
        query.not_before.FromDatetime(since)
    if until is not None:
        query.before.FromDatetime(until)


def newest(
    stub: "AuditServiceStub", query: "pb.ListDecisionsRequest", connection: Connection
) -> "Iterator[pb.DecisionRecord]":
    """All that the query finds, newest first, page by page as it is read."""
    request = type(query)(page_size=PAGE_ITEMS)
    request.MergeFrom(query)
    ask = method_of(stub.ListDecisions, connection)
    return (record for page in pages_of(ask, request) for record in page.decisions)
