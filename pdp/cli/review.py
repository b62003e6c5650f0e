"""`pdp review`: what a security team asks about access."""

from collections.abc import Callable, Iterator
from math import floor
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdp.cli.allowed import ACTOR_COLUMNS, path_rows
from pdp.cli.connection import connects
from pdp.cli.listing import (
    GRANT_COLUMNS,
    PAGE_ITEMS,
    As,
    Limit,
    Output,
    Row,
    grant_cells,
    pages_of,
    print_list,
    print_message,
    time_cell,
)
from pdp.cli.output import HELP_STYLE, fail, note
from pdp.cli.profiles import Connection
from pdp.cli.records import decision_cells, reason_name
from pdp.cli.remote import connected, method_of
from pdp.cli.review_campaign import app as campaign_app

if TYPE_CHECKING:
    from pdpapi.v1 import review_service_pb2 as pb

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=HELP_STYLE,
    help="Access reviews: what a user may do, and which grants and decisions need a look.",
)
app.add_typer(campaign_app, name="campaign")

DAY_SECONDS = 86_400
UNCOVERED_SHOWN = 5
Days = Annotated[int, typer.Option(min=1, max=3_650, help="Length of the window in days.")]


@app.command("user")
@connects
def user(
    user_id: Annotated[str, typer.Argument(metavar="USER", help="Clerk user id.")],
    limit: Limit = None,
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists what a user may do, by organization: in general, and on resources that are granted to
    them.

    Exit status: 0 answered, 1 everything is denied to the user, 2 no answer.
    """
    from pdpapi.v1 import review_service_pb2 as pb
    from pdpapi.v1.review_service_pb2_grpc import ReviewServiceStub

    request = pb.ListUserAccessRequest(user_id=user_id, page_size=PAGE_ITEMS)
    refusal = ""

    def found() -> Iterator[Any]:
        nonlocal refusal
        for page in pages_of(ask, request):
            if page.HasField("refusal"):
                refusal = f"{reason_name(page.refusal.reason)}: {page.refusal.message}"
            yield from page.access

    columns = ("organization", "resource", "permission", *ACTOR_COLUMNS[2:])
    with connected(connection) as channel:
        ask = method_of(ReviewServiceStub(channel).ListUserAccess, connection)
        print_list(output, columns, found(), _access_rows, limit)
    if refusal:
        fail(refusal)
        raise typer.Exit(1)


@app.command("unused")
@connects
def unused(
    days: Days = 90,
    limit: Limit = None,
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists grants that no logged decision has used for so many days, and for how many of them the
    log is complete. Servers must log allows: set `audit_allows`."""
    coverage: list[pb.LogCoverage] = []

    def rows(finding: Any) -> Iterator[Row]:
        known = f"{days_known(coverage[-1])} of {days}"
        yield (*grant_cells(finding.grant), time_cell(finding, "last_used_at"), known)

    columns = (*GRANT_COLUMNS, "last used", "days known")
    with connected(connection) as channel:
        found = _grant_findings(channel, connection, "UNUSED", days, coverage)
        print_list(output, columns, found, rows, limit)
    _state_coverage(output, coverage[-1])


@app.command("ending")
@connects
def ending(
    days: Days = 30,
    limit: Limit = None,
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists grants that end within so many days."""
    _print_grants(connection, "ENDING", output, limit, days)


@app.command("cross-tenant")
@connects
def cross_tenant(
    limit: Limit = None,
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists grants to users that hold everywhere, or in organizations of which they are no
    members."""
    _print_grants(connection, "CROSS_TENANT", output, limit)


@app.command("disabled")
@connects
def disabled(
    limit: Limit = None,
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists grants of disabled users."""
    _print_grants(connection, "DISABLED_USER", output, limit)


@app.command("impersonators")
@connects
def impersonators(
    days: Days = 7,
    limit: Limit = None,
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists decisions about users in whose name another one acted."""
    _print_decisions(connection, "IMPERSONATED", days, output, limit)


@app.command("denied-then-granted")
@connects
def denied_then_granted(
    days: Days = 7,
    limit: Limit = None,
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists allows of what the same user was denied at most an hour before. Servers must log
    allows: set `audit_allows`."""
    _print_decisions(connection, "GRANTED_AFTER_DENIAL", days, output, limit)


@app.command("first-time")
@connects
def first_time(
    days: Days = 7,
    limit: Limit = None,
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists allows that are the first logged ones of their user and permission. Servers must log
    allows: set `audit_allows`."""
    _print_decisions(connection, "FIRST_ACCESS", days, output, limit)


def _grant_findings(
    channel: Any,
    connection: Connection,
    kind: str,
    days: int = 0,
    coverage: "list[pb.LogCoverage] | None" = None,
) -> "Iterator[pb.GrantFinding]":
    """Yields the findings of all pages, and keeps the coverage of each page."""
    from pdpapi.v1 import review_service_pb2 as pb
    from pdpapi.v1.review_service_pb2_grpc import ReviewServiceStub

    request = pb.ListGrantFindingsRequest(
        kind=pb.GrantFindingKind.Value(f"GRANT_FINDING_KIND_{kind}"),
        days=days,
        page_size=PAGE_ITEMS,
    )
    ask = method_of(ReviewServiceStub(channel).ListGrantFindings, connection)
    for page in pages_of(ask, request):
        if coverage is not None:
            coverage[:] = [page.coverage]
        yield from page.findings


def _print_grants(
    connection: Connection, kind: str, output: Output, limit: int | None, days: int = 0
) -> None:
    with connected(connection) as channel:
        found = _grant_findings(channel, connection, kind, days)
        print_list(
            output, GRANT_COLUMNS, found, lambda finding: [grant_cells(finding.grant)], limit
        )


def _print_decisions(
    connection: Connection, kind: str, days: int, output: Output, limit: int | None
) -> None:
    from pdpapi.v1 import review_service_pb2 as pb
    from pdpapi.v1.review_service_pb2_grpc import ReviewServiceStub

    from pdp.clock import wall_clock

    request = pb.ListDecisionFindingsRequest(
        kind=pb.DecisionFindingKind.Value(f"DECISION_FINDING_KIND_{kind}"), page_size=PAGE_ITEMS
    )
    request.not_before.FromSeconds(int(wall_clock() - days * DAY_SECONDS))
    coverage = pb.LogCoverage()

    def found() -> "Iterator[pb.DecisionFinding]":
        for page in pages_of(ask, request):
            coverage.CopyFrom(page.coverage)
            yield from page.findings

    denied = ("denied at",) if kind == "GRANTED_AFTER_DENIAL" else ()
    columns = (
        *("time", "decision", "reason", "user", "impersonator", "organization", "permission"),
        *("resource", "rule", "grant", "id", *denied),
    )
    with connected(connection) as channel:
        ask = method_of(ReviewServiceStub(channel).ListDecisionFindings, connection)
        print_list(output, columns, found(), _decision_rows(with_denial=bool(denied)), limit)
    _state_coverage(output, coverage)


def days_known(coverage: "pb.LogCoverage") -> str:
    """Returns for how many days the log is complete, with one digit, never rounded up."""
    # Times have an error below a millisecond.
    seconds = coverage.covered.ToTimedelta().total_seconds() + 0.001
    return f"{floor(seconds / DAY_SECONDS * 10) / 10:.1f}"


def _state_coverage(output: Output, coverage: "pb.LogCoverage") -> None:
    """Says of which time the log may lack decisions: on standard error, and in JSON as a line."""
    from pdpapi.v1 import review_service_pb2 as pb

    if output is Output.JSON:
        print_message(pb.ListGrantFindingsResponse(coverage=coverage))
    if not coverage.uncovered:
        return
    since, until = coverage.since.ToJsonString(), coverage.until.ToJsonString()
    note(f"from {since} to {until} the log is complete for {days_known(coverage)} days only")
    for part in coverage.uncovered[:UNCOVERED_SHOWN]:
        name = pb.UncoveredReason.Name(part.reason).removeprefix("UNCOVERED_REASON_")
        note(f"{part.since.ToJsonString()} to {part.until.ToJsonString()}: {_WHY[name]}")
    more = len(coverage.uncovered) - UNCOVERED_SHOWN + coverage.uncovered_left_out
    if more > 0:
        note(f"and {more} more such times")


_WHY = {
    "UNKNOWN": "before a server first stated what it logs",
    "ALLOWS_NOT_LOGGED": "a process did not log allows (set audit_allows)",
    "NOT_SHIPPED": "a process ended before all its records were in the database",
    "GAP": "records were dropped",
    "OLDER_VERSION": "a process of an older version logged",
    "ERASED": "records were erased on request",
}


def _access_rows(access: Any) -> Iterator[Row]:
    ref = access.resource
    resource = f"{ref.type}:{ref.id}" if access.HasField("resource") else ""
    for path in path_rows(access):
        yield (access.organization_id, resource, access.permission, *path)


def _decision_rows(*, with_denial: bool) -> Callable[[Any], Iterator[Row]]:
    def rows(finding: Any) -> Iterator[Row]:
        denied = (time_cell(finding.denied_before, "decided_at"),) if with_denial else ()
        yield (*decision_cells(finding.decision), *denied)

    return rows
