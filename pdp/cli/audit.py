"""`pdp audit`: the decision log of a running server, and the segments of this machine."""

import functools
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import grpc
import typer
from google.protobuf.json_format import MessageToDict
from pdp_client.transport import caller_metadata
from pdpapi.v1 import audit_service_pb2 as pb
from pdpapi.v1 import core_pb2
from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub
from rich.table import Table

from pdp.audit import AHEAD_SECONDS_MAX, verify_segments
from pdp.cli.output import fail, out, say
from pdp.cli.remote import (
    DEADLINE_SECONDS,
    DEFAULT_SERVER,
    ApiKey,
    Ca,
    Certificate,
    Key,
    Server,
    channel_to,
    tls_of,
)

app = typer.Typer(no_args_is_help=True, help="What was decided, for a security team.")

N_co = TypeVar("N_co", covariant=True)


class _Enum(Protocol[N_co]):
    """A generated enum."""

    def Value(self, name: str) -> N_co: ...  # noqa: N802


Ask = Callable[[pb.ListDecisionsRequest], pb.ListDecisionsResponse]

PAGE_ITEMS = 100
FOLLOW_SECONDS = 0.5
FOLLOW_BACK_SECONDS = 5.0
FOLLOW_ITEMS_MAX = 10_000


@app.command("list")
def list_decisions(
    user: Annotated[str, typer.Option(help="Clerk user id.")] = "",
    permission: Annotated[str, typer.Option(help="Exact permission.")] = "",
    resource: Annotated[str, typer.Option(help="TYPE or TYPE:ID.")] = "",
    decision: Annotated[str, typer.Option(help="allow or deny.")] = "",
    reason: Annotated[str, typer.Option(help="e.g. TOKEN_EXPIRED.")] = "",
    organization: Annotated[str, typer.Option(help="The actor's active organization.")] = "",
    caller: Annotated[str, typer.Option(help="The backend that asked.")] = "",
    reported_by: Annotated[str, typer.Option(help="The sidecar that reported it.")] = "",
    since: Annotated[datetime | None, typer.Option(help="Decided at or after (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Decided before (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at the most.")] = PAGE_ITEMS,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with new decisions, oldest first.")
    ] = False,
    server: Server = DEFAULT_SERVER,
    api_key: ApiKey = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Lists decisions, newest first (with --follow: oldest first, and on)."""
    query = pb.ListDecisionsRequest(
        user_id=user,
        permission=permission,
        organization_id=organization,
        caller=caller,
        reported_by=reported_by,
    )
    if decision:
        query.decision = _member(core_pb2.Decision, "DECISION_", decision, "--decision")
    if reason:
        query.reason = _member(core_pb2.DecisionReason, "DECISION_REASON_", reason, "--reason")
    if resource:
        query.resource.type, _, query.resource.id = resource.partition(":")
    if since is not None:
        query.not_before.FromDatetime(since)
    if until is not None:
        query.before.FromDatetime(until)
    with channel_to(server, api_key, tls_of(ca, certificate, key)) as channel:
        ask = functools.partial(
            AuditServiceStub(channel).ListDecisions,
            timeout=DEADLINE_SECONDS,
            metadata=caller_metadata(api_key),
        )
        try:
            found = list(_newest(ask, query, limit))
            _print(found[::-1] if follow else found, as_json=as_json, heading=not follow)
            if follow:
                _follow(ask, query, found, as_json=as_json)
        except grpc.RpcError as error:
            fail(f"{error.code().name}: {error.details()}")
            raise typer.Exit(2) from None


@app.command("verify")
def verify(
    directory: Annotated[Path, typer.Argument(help="Directory of audit segments.")],
) -> None:
    """Checks the chain of the segments in a directory. Exit status 1 where it does not hold."""
    report = verify_segments(directory)
    for problem in report.problems:
        where = f"record {problem.position}" if problem.position is not None else "header"
        fail(f"{problem.path}: {where} at byte {problem.byte_offset}: {problem.what}")
    say(f"{report.records} records in {report.segments} segments")
    if report.problems:
        raise typer.Exit(1)


def _newest(ask: Ask, query: pb.ListDecisionsRequest, limit: int) -> Iterator[pb.DecisionRecord]:
    request = pb.ListDecisionsRequest()
    request.CopyFrom(query)
    while limit > 0:
        request.page_size = min(limit, PAGE_ITEMS)
        page = ask(request)
        yield from page.decisions
        limit -= len(page.decisions)
        request.page_token = page.next_page_token
        if not request.page_token:
            return


def _follow(
    ask: Ask, query: pb.ListDecisionsRequest, printed: list[pb.DecisionRecord], *, as_json: bool
) -> None:
    """Prints what comes on record besides what was `printed`, for ever.

    Decision ids sort by time, and processes ship apart from each other, so it looks back a little
    each time. What comes later than that (of a process or a sidecar that was cut off) is not shown
    here. The id of a reported record may be of a time to come: it must not hide what is decided
    until then.
    """
    seen = set(map(_key, printed))
    floor = min((record.decision_id for record in printed), default="")
    while True:
        fresh = []
        for record in _newest(ask, query, FOLLOW_ITEMS_MAX):
            if record.decision_id < floor:
                break
            if _key(record) not in seen:
                fresh.append(record)
        _print(fresh[::-1], as_json=as_json, heading=False)
        for record in fresh:
            ahead = AHEAD_SECONDS_MAX if record.reported_by else 0
            floor = max(floor, _earlier(record.decision_id, FOLLOW_BACK_SECONDS + ahead))
        seen = {key for key in seen.union(map(_key, fresh)) if key[0] >= floor}
        time.sleep(FOLLOW_SECONDS)


def _key(record: pb.DecisionRecord) -> tuple[str, str]:
    return record.decision_id, record.reported_by


def _earlier(decision_id: str, seconds: float) -> str:
    """What ids that were made so many seconds before this one sort behind."""
    made_at = int(decision_id.replace("-", "")[:12], 16)  # milliseconds: RFC 9562, 5.7
    digits = f"{max(0, made_at - round(seconds * 1000)):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def _member(enum: "_Enum[N_co]", prefix: str, text: str, option: str) -> N_co:
    try:
        return enum.Value(prefix + text.upper())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not one", param_hint=option) from None


def _print(records: list[pb.DecisionRecord], *, as_json: bool, heading: bool) -> None:
    if as_json:
        for record in records:
            typer.echo(json.dumps(MessageToDict(record, preserving_proto_field_name=True)))
        return
    sources = any(record.source or record.reported_by for record in records)
    requests = any(record.request for record in records)
    folded = any(record.occurrences > 1 for record in records)
    table = Table(box=None, show_header=heading, pad_edge=False)
    columns = ("time", "decision", "reason", "user", "permission", "resource", "rule")
    more = (("times",) * folded, ("request",) * requests, ("source", "reported by") * sources)
    for column in (*columns, *more[0], *more[1], *more[2]):
        table.add_column(column, overflow="fold")
    for record in records:
        resource = record.resource
        source = core_pb2.AnswerSource.Name(record.source).removeprefix("ANSWER_SOURCE_")
        table.add_row(
            record.decided_at.ToDatetime().isoformat(timespec="milliseconds") + "Z",
            core_pb2.Decision.Name(record.decision).removeprefix("DECISION_"),
            core_pb2.DecisionReason.Name(record.reason).removeprefix("DECISION_REASON_"),
            _cell(record.actor.user_id) or f"token {record.token_fingerprint}",
            _cell(record.permission),
            _cell(f"{resource.type}:{resource.id}") if resource.type else "",
            _cell(record.rule_id),
            *((str(record.occurrences),) if folded else ()),
            *((_cell(record.request),) if requests else ()),
            *((source if record.source else "", _cell(record.reported_by)) if sources else ()),
        )
    out.print(table)


def _cell(text: str) -> str:
    """Text of strangers: nothing in it is markup or reaches the terminal as a control sequence."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text).replace("[", r"\[")
