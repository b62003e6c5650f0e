"""`pdp audit`: the decision log of a running server, and the segments of this machine."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli import audit_retention, audit_tree
from pdp.cli.audit_verify import verify
from pdp.cli.changes import list_changes
from pdp.cli.connection import connects
from pdp.cli.output import HELP_STYLE, say
from pdp.cli.profiles import Connection
from pdp.cli.records import DECISION, REASON, member, print_fields, print_json, print_table
from pdp.cli.remote import connected, method_of

if TYPE_CHECKING:
    from pdpapi.v1 import audit_service_pb2 as pb
    from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=HELP_STYLE,
    help="What was decided and changed, for a security team.",
)
app.command("verify")(verify)
app.command("changes")(list_changes)
app.command("prove")(audit_tree.prove)
app.command("consistency")(audit_tree.consistency)
app.command("account")(audit_tree.account)
app.command("key")(audit_tree.key)
app.command("archive")(audit_retention.archive)
app.command("hold")(audit_retention.hold)
app.command("holds")(audit_retention.holds)
app.command("release")(audit_retention.release)

TABLE_ROWS = 100
PAGE_ITEMS = 500


@app.command("list")
@connects
def list_decisions(
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
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"How many at the most: {TABLE_ROWS} rows, all as JSON."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what reaches the log, until Ctrl-C.")
    ] = False,
    after: Annotated[
        str,
        typer.Option(
            metavar="CURSOR",
            help="All that reached the log behind a cursor, in that order; `start`: from its "
            "first record. Each line of --json has its cursor.",
        ),
    ] = "",
    *,
    connection: Connection,
) -> None:
    """Lists decisions, newest first; with --follow or --after as they reached the log."""
    from pdpapi.v1 import audit_service_pb2 as pb
    from pdpapi.v1 import core_pb2
    from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub

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
    if after and limit is not None:
        raise typer.BadParameter("--after has no limit: it shows all that follows")
    with connected(connection) as channel:
        stub = AuditServiceStub(channel)
        if follow or after:
            from pdp.cli.follow import Follower

            follower = Follower(method_of(stub.FollowDecisions, connection), query, as_json=as_json)
            if after:
                follower.start_behind("" if after == "start" else after)
            else:
                follower.start_at_end()
                newest = list(islice(_newest(stub, query, connection), limit or TABLE_ROWS))
                follower.show_first(newest[::-1])
            follower.run(forever=follow)
            return
        found = _newest(stub, query, connection)
        if as_json:
            for record in islice(found, limit):
                print_json(record)
            return
        rows = list(islice(found, limit or TABLE_ROWS))
        print_table(rows, heading=True)
        if next(found, None) is not None:
            say(f"there are more than these {len(rows)}: --limit shows more, --json all")


@app.command("show")
@connects
def show(
    decision_id: Annotated[str, typer.Argument(help="From an answer, a log or the list.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    *,
    connection: Connection,
) -> None:
    """Shows one decision, and what callers have reported under the same id."""
    from pdpapi.v1 import audit_service_pb2 as pb
    from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub

    with connected(connection) as channel:
        stub = AuditServiceStub(channel)
        request = pb.GetDecisionRequest(decision_id=decision_id)
        found = method_of(stub.GetDecision, connection)(request)
    for index, record in enumerate((found.decision, *found.others)):
        if as_json:
            print_json(record)
            continue
        if index:
            say("")
        print_fields(record)


def _newest(
    stub: "AuditServiceStub", query: "pb.ListDecisionsRequest", connection: Connection
) -> "Iterator[pb.DecisionRecord]":
    """All that the query finds, newest first, page by page as it is read."""
    request = type(query)(page_size=PAGE_ITEMS)
    request.MergeFrom(query)
    ask = method_of(stub.ListDecisions, connection)
    while True:
        page = ask(request)
        yield from page.decisions
        request.page_token = page.next_page_token
        if not request.page_token:
            return
