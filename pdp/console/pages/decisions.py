"""Decisions: a search in the log, and one decision with its explanation."""

from typing import Any, Final

from pdp.audit import ChangeFilter, DecisionFilter, DecisionRecord, Listed
from pdp.console.pages.inputs import choice_of, next_page, rule_steps, time_of
from pdp.console.parts import ConsoleParts, Page, Shown, Visit
from pdp.console.tenant import decisions_of, search_decisions
from pdp.errors import InvalidRequest, NotFound, RequestError
from pdp.explainer import Explained
from pdp.model import Effect, Reason

PAGE_ROWS: Final = 50
CLOCKS_DIFFER_SECONDS: Final = 5.0
"""By how much the clocks of two machines may differ without a warning."""
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
        found = await parts.blocking(lambda: _search(parts, visit, where, after or None))
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


def _search(parts: ConsoleParts, visit: Visit, where: DecisionFilter, after: str | None) -> Listed:
    if visit.organization is None:
        return parts.decision_log.list(where, after, PAGE_ROWS)
    return search_decisions(parts.decision_log, where, visit.organization, after, PAGE_ROWS)


async def show(parts: ConsoleParts, visit: Visit) -> Shown:
    """One decision, and how it would be decided now."""
    decision_id = visit.get("id")
    found = await parts.blocking(lambda: parts.decision_log.get(decision_id))
    explained, problem, more = None, "", {}
    if visit.organization is not None:
        # Without an explanation: it names grants and resources of others.
        found = decisions_of(found, visit.organization)
        if not found:
            raise NotFound("decision", decision_id)
    else:
        try:
            explained = await parts.explainer.explain_recorded(decision_id, {}, {})
        except RequestError as error:
            problem = error.message
        more = await _background(parts, found[0], explained)
    first, *others = found
    values = {
        "record": first,
        "others": others,
        "explained": explained,
        "problem": problem,
        "has_trees": parts.trees is not None,
        **more,
    }
    return Shown("decision.html", values)


async def _background(
    parts: ConsoleParts, record: DecisionRecord, explained: Explained | None
) -> dict[str, Any]:
    """The rule that decided, as it is now, and the times of changes that matter."""
    rule = parts.replica.policy.rules.get(record.rule_id or "")
    log = parts.administration_log
    of_rule = ChangeFilter(kind="rule", key=(record.rule_id or "",))
    changed = await parts.blocking(lambda: log.list(of_rule, None, 1))
    made = await parts.blocking(lambda: log.list(ChangeFilter(), (record.revision, 1), 1))
    steps = [] if explained is None else rule_steps(explained.explanation.tree)
    return {
        "rule": rule,
        "rule_changed": next((one for one in changed if one.revision > record.revision), None),
        "rule_step": next((step for step in steps if step.id == record.rule_id), None),
        "contradicting": next(
            (
                one
                for one in made
                if one.revision == record.revision
                and one.recorded_at > record.decided_at + CLOCKS_DIFFER_SECONDS
            ),
            None,
        ),
    }


PAGES = (
    Page("/decisions", "decisions", "Decisions", search, in_menu=True, of_organization=True),
    Page("/decision", "decision", "Decision", show, within="/decisions", of_organization=True),
)
