"""Now: decisions over time, denials by their causes, and the state of this process."""

from typing import Final

from pdp.console.charts import scale_of
from pdp.console.pages.inputs import link_to_decisions
from pdp.console.parts import ConsoleParts, Page, Shown, Visit

_SPANS: Final = {
    "15m": ("15 minutes", 15 * 60, "minute", 60),
    "1h": ("1 hour", 3600, "minute", 60),
    "6h": ("6 hours", 6 * 3600, "10 minutes", 600),
    "24h": ("24 hours", 24 * 3600, "hour", 3600),
    "7d": ("7 days", 7 * 24 * 3600, "4 hours", 4 * 3600),
}
"""Length and step, each as a name and in seconds."""
_REFRESH_SECONDS: Final = 15


async def show(parts: ConsoleParts, visit: Visit) -> Shown:
    """The page of the chosen span."""
    span = visit.get("span")
    span = span if span in _SPANS else "1h"
    name, seconds, step_name, step = _SPANS[span]
    now = parts.clock()
    # Whole steps, so that a column stays the same while it is looked at.
    start = (int(now // step) + 1) * step - seconds
    activity = await parts.blocking(lambda: parts.statistics.activity(start, step, seconds // step))
    live = visit.get("live") == "1"
    values = {
        "spans": [(key, label) for key, (label, *_) in _SPANS.items()],
        "span": span,
        "span_name": name.removeprefix("1 "),
        "live": live,
        "refresh_seconds": _REFRESH_SECONDS,
        "now": now,
        "start": start,
        "end": start + seconds,
        "step_name": step_name,
        "top": scale_of(activity.allowed, activity.denied),
        "activity": activity,
        "rows": [
            (start + number * step, allowed, denied)
            for number, (allowed, denied) in enumerate(
                zip(activity.allowed, activity.denied, strict=True)
            )
        ],
        "groups": [
            (
                title,
                [
                    (value, count, link_to_decisions(start=start, decision="deny", **{key: value}))
                    for value, count in counts
                ],
            )
            for title, key, counts in (
                ("Reason", "reason", activity.reasons),
                ("Permission", "permission", activity.permissions),
                ("Caller", "caller", activity.callers),
                ("Organization", "organization", activity.organizations),
            )
        ],
        "records_allows": parts.records_allows,
        "obstacles": parts.obstacles(),
        "revision": parts.replica.revision,
        "gauges": [(name, text, read()) for name, (text, read) in sorted(parts.gauges.items())],
    }
    return Shown("now.html", values, _REFRESH_SECONDS if live else None)


PAGES = (Page("/", "now", "Now", show, in_menu=True),)
