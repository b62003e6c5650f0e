"""Campaigns of reviews: open one, decide about its grants, take its signed report.

Only here the console writes: campaigns, verdicts, and the deletion of a revoked grant. Each write
is a POST of its own, and leads to a page that reads.
"""

import io
import zipfile
from collections.abc import Sequence
from functools import partial
from typing import Final

from starlette.responses import RedirectResponse, Response

from pdp.console.pages.inputs import choice_of, number_of
from pdp.console.parts import REVIEW, ConsoleParts, Page, Shown, Visit
from pdp.console.rendering import address
from pdp.errors import CallerNotAllowed, InvalidRequest, RequestError, Violation
from pdp.limits import DESCRIPTION_CHARACTERS_MAX
from pdp.reviews import CONSOLE_REVIEWER, Campaign, CampaignItem, Outcome
from pdp.reviews.report import item_cells, signed_report

PAGE_ROWS: Final = 25
"""With the other fields, fewer than `forms.FORM_FIELDS_MAX`."""
_ITEMS_AT_ONCE: Final = 500
_NUMBER: Final = "item-"
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}


async def show(parts: ConsoleParts, visit: Visit) -> Shown:
    """A campaign: its grants with their verdicts, and the form for those without."""
    return await _shown(parts, visit, visit.get("id"), visit.get("after"))


async def _shown(
    parts: ConsoleParts, visit: Visit, campaign_id: str, after: str, problems: Sequence[str] = ()
) -> Shown:
    number = number_of(after, "after", 0, 10**9) or 0
    page = await parts.blocking(lambda: parts.campaigns.items(campaign_id, number, PAGE_ROWS))
    own = [item for item in page.items if item.is_to(_name_of(visit))]
    values = {
        "campaign": page.campaign,
        "items": page.items,
        "own": own,
        "open": [
            item
            for item in page.items
            if item.verdict is None and item.state == "unchanged" and item not in own
        ],
        "after": after,
        "next": ""
        if page.after is None
        else address("/campaign", id=campaign_id, after=page.after),
        "is_first": not number,
        "field": _NUMBER,
        "problems": problems,
        "has_key": parts.report_key is not None,
        "reason_characters_max": DESCRIPTION_CHARACTERS_MAX,
    }
    return Shown("campaign.html", values)


async def create(parts: ConsoleParts, visit: Visit) -> Response:
    """Opens a campaign of the grants that are stored now."""
    form = visit.form
    name, role = form.get("name", "").strip(), form.get("role", "").strip()
    organization_id = form.get("organization", "").strip()
    reviewer = reviewer_of(visit)
    campaign = await parts.blocking(
        lambda: parts.campaigns.create(name, reviewer, role=role, organization_id=organization_id)
    )
    return RedirectResponse(address("/campaign", id=campaign.id), 303)


async def decide(parts: ConsoleParts, visit: Visit) -> Shown | Response:
    """Certifies or revokes the chosen grants; names those that are refused."""
    form = visit.form
    campaign_id, after = form.get("id", ""), form.get("after", "")
    outcome = choice_of(form.get("outcome", ""), _OUTCOMES, "outcome")
    if outcome is None:
        raise InvalidRequest(Violation("outcome", "must be set"))
    reason = form.get("reason", "").replace("\r\n", "\n").strip()
    reviewer = reviewer_of(visit)
    numbers = sorted(
        number_of(name.removeprefix(_NUMBER), "item", 1, 10**9) or 0
        for name in form
        if name.startswith(_NUMBER)
    )
    problems = [] if numbers else ["choose at least one grant"]
    for number in numbers:
        try:
            await parts.blocking(
                partial(parts.campaigns.decide, campaign_id, number, outcome, reviewer, reason)
            )
        except (RequestError, CallerNotAllowed) as error:
            problems.append(f"grant {number}: {error.message}")
    if problems:
        return await _shown(parts, visit, campaign_id, after, problems)
    return RedirectResponse(address("/campaign", id=campaign_id, after=after), 303)


async def report(parts: ConsoleParts, visit: Visit) -> Response:
    """The signed report: an archive of the files that `pdp review campaign export` writes."""
    key = parts.report_key
    if key is None:
        text = "reports are not signed here: set console.report_key_file"
        raise InvalidRequest(Violation("id", text))
    campaign_id = visit.get("id")

    def pack() -> tuple[Campaign, bytes]:
        items: list[CampaignItem] = []
        after = 0
        while True:
            page = parts.campaigns.items(campaign_id, after, _ITEMS_AT_ONCE)
            items += page.items
            if page.after is None:
                break
            after = page.after
        rows = [item_cells(item) for item in items]
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, file in signed_report(page.campaign, rows, key).items():
                archive.writestr(name, file)
        return page.campaign, content.getvalue()

    campaign, content = await parts.blocking(pack)
    # Its id as it is stored: what the address says must not reach a header.
    name = f'attachment; filename="review-{campaign.id}.zip"'
    return Response(content, media_type="application/zip", headers={"content-disposition": name})


def reviewer_of(visit: Visit) -> str:
    """The name of a person in campaigns and administration records. Raises CallerNotAllowed for
    somebody who acts in the name of that person."""
    actor = visit.token.actor
    if actor.impersonator_id is not None:
        text = "you act in the name of somebody else: a verdict is that of a named reviewer"
        raise CallerNotAllowed(text)
    return _name_of(visit)


def _name_of(visit: Visit) -> str:
    return f"{CONSOLE_REVIEWER}{visit.token.actor.user_id}"


PAGES = (
    Page("/campaign", "campaign", "Campaign", show, within="/reviews"),
    Page("/campaign/report", "campaign-report", "Report", report, permission=REVIEW),
    Page(
        "/campaign/verdicts",
        "campaign-verdicts",
        "Verdicts",
        decide,
        permission=REVIEW,
        methods=("POST",),
    ),
    Page("/campaigns", "campaigns", "New campaign", create, permission=REVIEW, methods=("POST",)),
)
