"""Reviews: the lists of `pdp review`, each as a page and as CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from pdp import names
from pdp.audit import Coverage
from pdp.console.pages.inputs import next_page
from pdp.console.pages.review_lists import LISTINGS, Listing, days_text, length_text
from pdp.console.parts import ConsoleParts, Page, Shown, Visit
from pdp.errors import InvalidRequest, LimitExceeded, Violation
from pdp.printable import csv_text

PAGE_ROWS: Final = 50
CSV_ROWS: Final = 500
"""Findings of one step of a file."""
CSV_STEPS_MAX: Final = 40
CAMPAIGNS_SHOWN: Final = 20
UNCOVERED_SHOWN: Final = 5
_SECONDS_MAX: Final = 1e12
"""Of a time in a key, of any sign: more than those of all calendars."""


async def index(parts: ConsoleParts, _: Visit) -> Shown:
    """The lists, and the newest campaigns."""
    campaigns = await parts.blocking(lambda: parts.campaigns.list("", CAMPAIGNS_SHOWN))
    values = {
        "listings": LISTINGS,
        "campaigns": campaigns,
        "roles": sorted(parts.replica.policy.role_names()),
    }
    return Shown("reviews.html", values)


async def show(parts: ConsoleParts, visit: Visit) -> Shown | Response:
    """One list: a page of it, or all of it as a file."""
    name = visit.get("list")
    listing = LISTINGS.get(name)
    if listing is None:
        raise InvalidRequest(Violation("list", f"{name!r} is not a list"))
    if listing.days is not None and not visit.get("days"):
        visit = visit.with_query(days=str(listing.days))
    found = None
    is_asked = all(visit.get(field) for field in listing.fields)
    if is_asked:
        _check(visit)
        if visit.get("as") == "csv":
            return await _file(parts, visit, name, listing)
        key = _key(visit.query.get("after", ""), listing.key)
        found = await listing.ask(parts, visit, key, PAGE_ROWS)
    rows = () if found is None else found.rows
    # The link of a time leads to the id, and the days are above. A file has all columns.
    shown = [
        number
        for number, column in enumerate(listing.columns)
        if column not in ("id", "days known")
        and (not rows or any(row[number].text for row in rows))
    ]
    values = {
        "name": name,
        "listing": listing,
        "shown": shown,
        "rows": [[row[number] for number in shown] for row in rows],
        "asked": visit,
        "found": found,
        "next": next_page("/review", visit, after="\n".join(found.after))
        if found is not None and found.after
        else "",
        "first": next_page("/review", visit, after=""),
        "csv": next_page("/review", visit, **{"as": "csv"}, after=""),
        "coverage": None if found is None else coverage_of(found.coverage),
        "permissions": sorted(name for name, _ in parts.replica.policy.permissions.items()),
        "records_allows": parts.records_allows,
    }
    return Shown("review.html", values)


async def _file(parts: ConsoleParts, visit: Visit, name: str, listing: Listing) -> Response:
    """The whole list as CSV. It is never cut off in silence."""
    rows: list[Sequence[str]] = [listing.columns]
    key: Sequence[str] = ()
    for _ in range(CSV_STEPS_MAX):
        found = await listing.ask(parts, visit, key, CSV_ROWS)
        rows += [[cell.text for cell in row] for row in found.rows]
        key = found.after
        if not key:
            break
    else:
        limit = CSV_STEPS_MAX * CSV_ROWS
        raise LimitExceeded("review_file_rows_max", limit, limit + 1)
    covered = coverage_of(found.coverage)
    if covered is not None:
        # Not a comment of its own, which a program would take for a row.
        rows = [
            [*row, "log complete for days" if number == 0 else covered.days]
            for number, row in enumerate(rows)
        ]
    text = await parts.blocking(lambda: csv_text(rows))
    return Response(
        text,
        media_type="text/csv",
        headers={"content-disposition": f'attachment; filename="review-{name}.csv"'},
    )


# --- parameters -----------------------------------------------------------------------------------


def _check(visit: Visit) -> None:
    """Raises InvalidRequest for texts that no id can be."""
    for field in ("user", "permission", "resource"):
        text = visit.get(field)
        wrong = names.check_identifier(text, field) if text else None
        if wrong is not None:
            raise InvalidRequest(wrong)


def _key(text: str, shape: str) -> Sequence[str]:
    """The key in an address. Raises InvalidRequest."""
    if not text:
        return ()
    parts = text.split("\n")
    if len(parts) == len(shape) and all(map(_is_part, parts, shape)):
        return parts
    raise InvalidRequest(Violation("after", "is not the place of a list"))


def _is_part(text: str, kind: str) -> bool:
    if kind == "n":
        return not text or names.check_identifier(text, "after") is None
    try:
        return abs(float(text)) < _SECONDS_MAX
    except ValueError:
        return False


# --- coverage -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Covered:
    """Coverage for people."""

    since: float
    until: float
    days: str
    length: str
    """For how long it is complete: "3 hours"."""
    is_complete: bool
    parts: Sequence[tuple[float, float, str]]
    left_out: int


def coverage_of(coverage: Coverage | None) -> Covered | None:
    """Of which time the log may lack decisions; None: the list does not read it."""
    if coverage is None:
        return None
    parts = coverage.uncovered
    return Covered(
        coverage.since,
        coverage.until,
        days_text(coverage.covered_seconds),
        length_text(coverage.covered_seconds),
        not parts,
        [(part.since, part.until, part.why.value) for part in parts[:UNCOVERED_SHOWN]],
        max(0, len(parts) - UNCOVERED_SHOWN),
    )


PAGES = (
    Page("/reviews", "reviews", "Reviews", index, in_menu=True),
    Page("/review", "review", "Review", show, within="/reviews"),
)
