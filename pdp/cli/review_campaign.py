"""`pdp review campaign`: freeze grants, certify or revoke each, export a signed report."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdp.cli.connection import connects
from pdp.cli.listing import (
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
from pdp.cli.output import HELP_STYLE, note, say
from pdp.cli.profiles import Connection
from pdp.cli.remote import connected, method_of

if TYPE_CHECKING:
    from pdpapi.v1 import review_service_pb2 as pb

    from pdp.reviews import Campaign

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=HELP_STYLE,
    help="Reviews of grants that are frozen at a revision. The caller is the reviewer.",
)

CampaignId = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Id of the campaign.")]
Numbers = Annotated[list[int], typer.Argument(metavar="NUMBER...", help="Numbers of its grants.")]
Reason = Annotated[str, typer.Option(help="Why; part of the record.")]


@app.command("create")
@connects
def create(
    name: Annotated[str, typer.Argument(help="A name for people.")],
    role: Annotated[str, typer.Option(help="Only grants of this role.")] = "",
    organization: Annotated[str, typer.Option(help="Only grants within this organization.")] = "",
    *,
    connection: Connection,
) -> None:
    """Freezes the grants that are stored now, at most 10,000, and prints the campaign's id."""
    from pdpapi.v1 import review_service_pb2 as pb
    from pdpapi.v1.review_service_pb2_grpc import ReviewServiceStub

    request = pb.CreateCampaignRequest(name=name, role=role, organization_id=organization)
    with connected(connection) as channel:
        created = method_of(ReviewServiceStub(channel).CreateCampaign, connection)(request).campaign
    say(created.id)
    note(f"{created.items} grants, as of revision {created.revision}")


@app.command("list")
@connects
def list_campaigns(
    limit: Limit = None,
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists campaigns, newest first."""
    from pdpapi.v1 import review_service_pb2 as pb
    from pdpapi.v1.review_service_pb2_grpc import ReviewServiceStub

    def rows(campaign: "pb.Campaign") -> Iterator[Row]:
        yield (
            campaign.id,
            campaign.name,
            campaign.created_by,
            time_cell(campaign, "created_at"),
            str(campaign.revision),
            f"{campaign.decided} of {campaign.items}",
        )

    columns = ("campaign", "name", "by", "at", "revision", "verdicts")
    request = pb.ListCampaignsRequest(page_size=PAGE_ITEMS)
    with connected(connection) as channel:
        ask = method_of(ReviewServiceStub(channel).ListCampaigns, connection)
        found = (campaign for page in pages_of(ask, request) for campaign in page.campaigns)
        print_list(output, columns, found, rows, limit)


@app.command("show")
@connects
def show(
    campaign_id: CampaignId,
    limit: Limit = None,
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists the grants of a campaign, with their verdicts and whether they have changed since."""
    from pdp.reviews.report import ITEM_COLUMNS

    with connected(connection) as channel:
        pages = _pages(channel, connection, campaign_id)
        found = (item for page in pages for item in page.items)
        print_list(output, ITEM_COLUMNS, found, lambda item: [_item_cells(item)], limit)


@app.command("certify")
@connects
def certify(
    campaign_id: CampaignId,
    numbers: Numbers,
    reason: Reason,
    *,
    connection: Connection,
) -> None:
    """States that grants may stay. A grant that has changed since the campaign began is refused,
    and so is one to a user with the caller's name."""
    with connected(connection) as channel:
        _decide(channel, connection, campaign_id, numbers, "CERTIFIED", reason)


@app.command("revoke")
@connects
def revoke(
    campaign_id: CampaignId,
    numbers: Numbers,
    reason: Reason,
    *,
    connection: Connection,
) -> None:
    """Deletes grants. The caller needs the capability `administer` too. A policy document that has
    the grant would create it again."""
    with connected(connection) as channel:
        _decide(channel, connection, campaign_id, numbers, "REVOKED", reason)


@app.command("export")
@connects
def export(
    campaign_id: CampaignId,
    signing_key: Annotated[
        Path, typer.Option(metavar="FILE", help="Ed25519 private key, PEM, without passphrase.")
    ],
    directory: Annotated[
        Path, typer.Option(file_okay=False, exists=True, help="Where to write.")
    ] = Path(),
    *,
    connection: Connection,
) -> None:
    """Writes the campaign as HTML and CSV, each with its signature in a file `.sig`."""
    from pdp.reviews.report import read_key, signed_report

    signer = read_key(signing_key)
    items: list[pb.CampaignItem] = []
    with connected(connection) as channel:
        for page in _pages(channel, connection, campaign_id):
            campaign = page.campaign
            items += page.items
    rows = [_item_cells(item) for item in items]
    for name, content in signed_report(_campaign(campaign), rows, signer).items():
        (directory / name).write_bytes(content)
        if not name.endswith(".sig"):
            say(str(directory / name))
    missing = campaign.items - campaign.decided
    if missing:
        note(f"{missing} of {campaign.items} grants have no verdict")


def _pages(
    channel: Any, connection: Connection, campaign_id: str
) -> "Iterator[pb.ListCampaignItemsResponse]":
    from pdpapi.v1 import review_service_pb2 as pb
    from pdpapi.v1.review_service_pb2_grpc import ReviewServiceStub

    ask = method_of(ReviewServiceStub(channel).ListCampaignItems, connection)
    return pages_of(ask, pb.ListCampaignItemsRequest(campaign_id=campaign_id, page_size=PAGE_ITEMS))


def _campaign(message: "pb.Campaign") -> "Campaign":
    from pdp.reviews import Campaign

    return Campaign(
        message.id,
        message.name,
        message.created_by,
        message.created_at.ToMilliseconds() / 1000,
        message.revision,
        message.items,
        message.decided,
    )


def _item_cells(item: Any) -> Row:
    """Returns the cells of `report.ITEM_COLUMNS`."""
    from pdpapi.v1 import review_service_pb2 as pb

    verdict = item.verdict
    state = pb.CampaignGrantState.Name(item.state).removeprefix("CAMPAIGN_GRANT_STATE_")
    outcome = ""
    if item.HasField("verdict"):
        outcome = pb.ReviewOutcome.Name(verdict.outcome).removeprefix("REVIEW_OUTCOME_")
    return (
        str(item.number),
        *grant_cells(item.grant),
        state.lower(),
        outcome.lower(),
        verdict.reviewer,
        time_cell(verdict, "decided_at"),
        verdict.reason,
    )


def _decide(
    channel: Any,
    connection: Connection,
    campaign_id: str,
    numbers: list[int],
    outcome: str,
    reason: str,
) -> None:
    from pdpapi.v1 import review_service_pb2 as pb
    from pdpapi.v1.review_service_pb2_grpc import ReviewServiceStub

    decide = method_of(ReviewServiceStub(channel).DecideCampaignItem, connection)
    for number in numbers:
        request = pb.DecideCampaignItemRequest(
            campaign_id=campaign_id,
            number=number,
            outcome=pb.ReviewOutcome.Value(f"REVIEW_OUTCOME_{outcome}"),
            reason=reason,
        )
        print_message(decide(request).item)
