"""Decisions: a search in the log, and one decision with its explanation."""

from typing import Final

from pdp.audit import DecisionFilter, Listed
from pdp.console.pages.inputs import choice_of, next_page, time_of
from pdp.console.parts import ConsoleParts, Page, Shown, Visit
from pdp.errors import InvalidRequest, RequestError
from pdp.model import Effect, Reason

PAGE_ROWS: Final = 50
_REFRESH_SECONDS: Final = 15
_EFFECTS: Final = {effect.value: effect for effect in Effect}
_REASONS: Final = {reason.name: reason for reason in Reason}


def filter_of(visit: Visit) -> DecisionFilter:
    """The filter in an address. Raises InvalidRequest."""
    return DecisionFilter(
        user_id=visit.get("user") or None,
        permission=visit.get("permission") or None,
        resource_type=visit.get("type") or None,
        resource_id=visit.get("id") or None,
        effect=choice_of(visit.get("decision"), _EFFECTS, "decision"),
        reason=choice_of(visit.get("reason"), _REASONS, "reason"),
        organization_id=visit.get("organization") or None,
        caller=visit.get("caller") or None,
        reported_by=visit.get("reported_by") or None,
        not_before=time_of(visit.get("from"), "from"),
        before=time_of(visit.get("to"), "to"),
    )


async def search(parts: ConsoleParts, visit: Visit) -> Shown:
    """One page of the decisions that match, newest first."""
    problem, found = "", Listed((), None)
    after = visit.get("after")
    try:
        where = filter_of(visit)
    except InvalidRequest as error:
        problem = error.message
    else:
        found = await parts.blocking(
            lambda: parts.decision_log.list(where, after or None, PAGE_ROWS)
        )
    older = "" if found.after is None else next_page("/decisions", visit, after=found.after)
    live = visit.get("live") == "1" and not after
    values = {
        "found": found.decisions,
        "older": older,
        "newest": next_page("/decisions", visit, after="") if after else "",
        "toggle_live": next_page("/decisions", visit, after="", live="" if live else "1"),
        "live": live,
        "refresh_seconds": _REFRESH_SECONDS,
        "problem": problem,
        "asked": visit,
        "reasons": sorted(_REASONS),
        "now": parts.clock(),
        "records_allows": parts.records_allows,
    }
    return Shown("decisions.html", values, _REFRESH_SECONDS if live else None)


async def show(parts: ConsoleParts, visit: Visit) -> Shown:
    """One decision, and how it would be decided now."""
    decision_id = visit.get("id")
    first, *others = await parts.blocking(lambda: parts.decision_log.get(decision_id))
    explained, problem = None, ""
    try:
        explained = await parts.explainer.explain_recorded(decision_id, {}, {})
    except RequestError as error:
        problem = error.message
    values = {"record": first, "others": others, "explained": explained, "problem": problem}
    return Shown("decision.html", values)


PAGES = (
    Page("/decisions", "decisions", "Decisions", search, in_menu=True),
    Page("/decision", "decision", "Decision", show),
)
