"""`pdp audit`: the decision log of a running server, and the segments of this machine."""

from itertools import islice
from typing import Annotated, Any

import typer

from pdp.cli import audit_retention, audit_tree, decisions
from pdp.cli.audit_chart import chart
from pdp.cli.audit_erase import erase
from pdp.cli.audit_export import export
from pdp.cli.audit_forward import forward
from pdp.cli.audit_verify import verify
from pdp.cli.changes import list_changes
from pdp.cli.connection import connects
from pdp.cli.listing import TABLE_ROWS, AsJson, Limit, print_message, print_records
from pdp.cli.output import HELP_STYLE, say
from pdp.cli.profiles import Connection
from pdp.cli.records import print_fields, print_table
from pdp.cli.remote import connected, method_of

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
app.command("chart")(chart)
app.command("erase")(erase)
app.command("export")(export)
app.command("forward")(forward)


@app.command("list")
@connects
@decisions.filters_decisions
def list_decisions(
    query: Any,
    limit: Limit = None,
    as_json: AsJson = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what reaches the log, until Ctrl-C.")
    ] = False,
    after: Annotated[
        str,
        typer.Option(
            metavar="CURSOR",
            help="All that reached the log after a cursor, in that order; `start`: from its "
            "first record. Each line of --json has its cursor.",
        ),
    ] = "",
    *,
    connection: Connection,
) -> None:
    """Lists decisions, newest first; with --follow or --after as they reached the log."""
    from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub

    if after and limit is not None:
        raise typer.BadParameter("--after has no limit: it shows all that follows")
    with connected(connection) as channel:
        stub = AuditServiceStub(channel)
        if follow or after:
            from pdp.cli.follow import Follower

            follower = Follower(method_of(stub.FollowDecisions, connection), query, as_json=as_json)
            if after:
                follower.start_after("" if after == "start" else after)
            else:
                follower.start_at_end()
                newest = list(
                    islice(decisions.newest(stub, query, connection), limit or TABLE_ROWS)
                )
                follower.show_first(newest[::-1])
            follower.run(forever=follow)
            return
        found = decisions.newest(stub, query, connection)
        print_records(found, print_table, limit, as_json=as_json)


@app.command("show")
@connects
def show(
    decision_id: Annotated[str, typer.Argument(help="From an answer, a log or the list.")],
    as_json: AsJson = False,
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
            print_message(record)
            continue
        if index:
            say("")
        print_fields(record)
