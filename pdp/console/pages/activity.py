"""Now: decisions over time, denials by their causes, and the state of this process."""

from typing import Any, Final

from pdp.audit import Activity, Anomaly, Unusual, find_anomalies, read_processes
from pdp.audit.anomalies import RECENT_SECONDS
from pdp.console.charts import scale_of
from pdp.console.pages.inputs import link_to_decisions
from pdp.console.parts import ConsoleParts, Page, Shown, Visit
from pdp.facts.replica.registration import UNREFRESHED_SECONDS_MAX, known_replicas

ANOMALIES_SHOWN: Final = 10
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
    steps, organization = seconds // step, visit.organization
    if organization is None:
        activity = await parts.blocking(lambda: parts.statistics.activity(start, step, steps))
        more = await _everything(parts, now)
    else:
        denied = await parts.blocking(
            lambda: parts.statistics.denials_of(organization, start, step, steps)
        )
        activity = Activity(start, step, [0] * steps, denied, (), (), (), (), 0)
        more = {}
    anomalies = await parts.blocking(lambda: find_anomalies(parts.store.engine, now))
    if organization is not None:
        # The counts of others, of reasons and of permissions are those of all organizations.
        own = ("organization", organization)
        anomalies = [found for found in anomalies if (found.dimension, found.value) == own]
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
        "anomalies": [
            (anomaly, _text(anomaly), _link(anomaly, now))
            for anomaly in anomalies[:ANOMALIES_SHOWN]
        ],
        "recent_minutes": RECENT_SECONDS // 60,
        "records_allows": parts.records_allows,
        **more,
    }
    return Shown("now.html", values, _REFRESH_SECONDS if live else None)


async def _everything(parts: ConsoleParts, now: float) -> dict[str, Any]:
    """The state of this process and of others."""
    engine = parts.store.engine
    return {
        "replicas": await parts.blocking(lambda: known_replicas(engine)),
        "refresh_replica_seconds": UNREFRESHED_SECONDS_MAX,
        "processes": await parts.blocking(lambda: read_processes(engine, now)),
        "obstacles": parts.obstacles(),
        "revision": parts.replica.revision,
        "gauges": [(name, text, read()) for name, (text, read) in sorted(parts.gauges.items())],
    }


def _text(anomaly: Anomaly) -> str:
    denials = f"{anomaly.denials} denial{'s' if anomaly.denials != 1 else ''}"
    if anomaly.what is Unusual.USER_DENIED:
        return f"{denials} of several permissions, and no allow is logged"
    if anomaly.what is Unusual.NEW_REASON:
        return f"{denials}, and none in the 7 days before"
    return f"{denials}, usually {anomaly.usual:.1f}"


def _link(anomaly: Anomaly, now: float) -> str:
    filters = {} if anomaly.dimension == "effect" else {anomaly.dimension: anomaly.value}
    return link_to_decisions(start=now - RECENT_SECONDS, decision="deny", **filters)


PAGES = (Page("/", "now", "Now", show, in_menu=True, of_organization=True),)
