"""The signed report of a campaign: HTML for people, CSV for spreadsheets.

Names, ids and reasons are text of others: they are escaped, and the page loads and runs nothing.
"""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pdp.cli.listing import GRANT_COLUMNS, Row, csv_text, grant_cells, time_cell
from pdp.printable import printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from pdpapi.v1 import review_service_pb2 as pb

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


def item_cells(item: Any) -> Row:
    """Returns the cells of ITEM_COLUMNS."""
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


def html_report(campaign: "pb.Campaign", items: "Sequence[pb.CampaignItem]") -> str:
    """Renders a campaign as a page that needs nothing else."""
    facts = {
        "Campaign": campaign.id,
        "Created": f"{time_cell(campaign, 'created_at')} by {campaign.created_by}",
        "Grants": f"{campaign.items}, as of revision {campaign.revision}",
        "Verdicts": f"{campaign.decided} of {campaign.items}",
    }
    return _PAGE.format(
        title=_text(f"Access review: {campaign.name}"),
        facts="\n".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items()),
        heads="".join(f'<th scope="col">{_text(column)}</th>' for column in ITEM_COLUMNS),
        rows="\n".join(f"<tr>{_cells(item)}</tr>" for item in items),
    )


def csv_report(campaign: "pb.Campaign", items: "Sequence[pb.CampaignItem]") -> str:
    """Renders a campaign as CSV. Each row names the campaign: the file of another one is not taken
    for it."""

    def rows() -> Iterator[Row]:
        yield ("campaign", "name", "revision", *ITEM_COLUMNS)
        for item in items:
            yield (campaign.id, campaign.name, str(campaign.revision), *item_cells(item))

    return csv_text(rows())


def read_key(file: Path) -> "Ed25519PrivateKey":
    """Reads an Ed25519 key from a PEM file without a passphrase. Raises OSError or ValueError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        # From None: the cause would quote the file.
        problem = f"{file} does not hold an Ed25519 private key in PEM"
        raise ValueError(problem) from None  # noqa: TRY004
    return key


def write_signed(file: Path, content: str, key: "Ed25519PrivateKey") -> None:
    """Writes a file, and beside it `.sig`: the 64 bytes of its Ed25519 signature (RFC 8032). Raises
    OSError."""
    raw = content.encode()
    file.write_bytes(raw)
    file.with_name(f"{file.name}.sig").write_bytes(key.sign(raw))


def _cells(item: Any) -> str:
    return "".join(f"<td>{_text(cell)}</td>" for cell in item_cells(item))


def _text(text: str) -> str:
    return escape(printable(text))
