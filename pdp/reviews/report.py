"""The signed report of a campaign: HTML for people, CSV for spreadsheets.

Names, ids and reasons are text of others: they are escaped, and the page loads and runs nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pdp.model import Grant, InOrganization, OnResource, ToUser
from pdp.printable import csv_text, printable
from pdp.reviews.campaigns import Campaign, CampaignItem

Row = Sequence[str]

GRANT_COLUMNS: Final[Row] = ("grant", "role", "subject", "scope", "from", "until")
ITEM_COLUMNS: Final[Row] = (
    *("number", *GRANT_COLUMNS, "now", "verdict"),
    *("reviewer", "at", "reason"),
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 2rem; color-scheme: light dark }}
table {{ border-collapse: collapse }}
th, td {{ border: 1px solid; padding: 0.25rem 0.5rem; text-align: left; vertical-align: top }}
td {{ overflow-wrap: anywhere }}
</style>
</head>
<body>
<h1>{title}</h1>
<dl>
{facts}
</dl>
<table>
<caption>Grants and verdicts</caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""


def signed_report(
    campaign: Campaign, rows: Sequence[Row], key: Ed25519PrivateKey
) -> Mapping[str, bytes]:
    """Returns the files of a report by name: HTML and CSV, each with its signature in a file
    `.sig`, the 64 bytes of Ed25519 (RFC 8032).

    Args:
        campaign: The campaign.
        rows: Its items, as ITEM_COLUMNS.
        key: Signs the files.
    """
    files: dict[str, bytes] = {}
    for suffix, render in (("html", html_report), ("csv", csv_report)):
        name, content = f"review-{campaign.id}.{suffix}", render(campaign, rows).encode()
        files |= {name: content, f"{name}.sig": key.sign(content)}
    return files


def html_report(campaign: Campaign, rows: Sequence[Row]) -> str:
    """Renders a campaign as a page that needs nothing else."""
    facts = {
        "Campaign": campaign.id,
        "Created": f"{time_cell(campaign.created_at)} by {campaign.created_by}",
        "Grants": f"{campaign.items}, as of revision {campaign.revision}",
        "Verdicts": f"{campaign.decided} of {campaign.items}",
    }
    return _PAGE.format(
        title=_text(f"Access review: {campaign.name}"),
        facts="\n".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items()),
        heads="".join(f'<th scope="col">{_text(column)}</th>' for column in ITEM_COLUMNS),
        rows="\n".join(f"<tr>{_cells(row)}</tr>" for row in rows),
    )


def csv_report(campaign: Campaign, rows: Sequence[Row]) -> str:
    """Renders a campaign as CSV. Each row names the campaign: the file of another one is not taken
    for it."""

    def lines() -> Iterator[Row]:
        yield ("campaign", "name", "revision", *ITEM_COLUMNS)
        for row in rows:
            yield (campaign.id, campaign.name, str(campaign.revision), *row)

    return csv_text(lines())


def time_cell(seconds: float | None) -> str:
    """Returns a time (seconds since 1970) as RFC 3339; empty: there is none."""
    if seconds is None:
        return ""
    time = datetime.fromtimestamp(seconds, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def grant_cells(grant: Grant) -> Row:
    """Returns the cells of GRANT_COLUMNS."""
    scope = "everywhere"
    if isinstance(grant.scope, InOrganization):
        scope = f"organization {grant.scope.organization_id}"
    elif isinstance(grant.scope, OnResource):
        scope = f"resource {grant.scope.resource.type}:{grant.scope.resource.id}"
    subject = grant.subject
    return (
        grant.id,
        grant.role,
        f"user {subject.user_id}"
        if isinstance(subject, ToUser)
        else f"role {subject.organization_role}",
        scope,
        time_cell(grant.not_before),
        time_cell(grant.expires_at),
    )


def item_cells(item: CampaignItem) -> Row:
    """Returns the cells of ITEM_COLUMNS."""
    cells = (str(item.number), *grant_cells(item.grant), item.state)
    verdict = item.verdict
    if verdict is None:
        return (*cells, "", "", "", "")
    at = time_cell(verdict.decided_at)
    return (*cells, verdict.outcome.value, verdict.reviewer, at, verdict.reason)


def read_key(file: Path) -> Ed25519PrivateKey:
    """Reads an Ed25519 key from a PEM file without a passphrase. Raises OSError or ValueError."""
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        # From None: the cause would quote the file.
        problem = f"{file} does not hold an Ed25519 private key in PEM"
        raise ValueError(problem) from None  # noqa: TRY004  # of the content
    return key


def _cells(row: Row) -> str:
    return "".join(f"<td>{_text(cell)}</td>" for cell in row)


def _text(text: str) -> str:
    return escape(printable(text))
