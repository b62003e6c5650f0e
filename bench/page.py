"""The tables of `docs/performance.md` and its plot, from the content of `build/bench.json`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from bench import plan, plot
from bench.peers import openfga
from bench.results import NOT_MEASURED, Results
from bench.series import (
    ALLOWS,
    BATCH,
    BESIDE_BATCHES,
    DENIALS,
    LOADED,
    PDP,
    UNLOADED,
    Series,
)

BEGIN = "<!-- bench: begin. `make bench ARGS=--render` writes what is between these lines. -->"
END = "<!-- bench: end -->"

_ORDER = (LOADED, UNLOADED, BATCH, BESIDE_BATCHES, ALLOWS, DENIALS)
_LEFT, _RIGHT = "---", "---:"


def write(content: Mapping[str, Any]) -> None:
    """Writes the page and its plot."""
    plan.PAGE.write_text(put_into(plan.PAGE.read_text(), tables(content)))
    if (drawn := picture(content)) is not None:
        plan.PLOT.write_text(drawn)


def put_into(page: str, text: str) -> str:
    """The page with `text` between its two comments. Raises ValueError if they are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for the tables of the bench")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def picture(content: Mapping[str, Any]) -> str | None:
    """Checks per second of a core, side by side; None if they were not measured."""
    rows = [
        (each.subject, each.middle("requests_per_core_second"))
        for each in Results(content).series
        if each.what == LOADED and each.rules == plan.RULES
    ]
    title = f"Checks per second of one core, {plan.RULES:,} rules"
    note = "Each verifies an RS256 session token"
    if any(subject == openfga.NAME for subject, _ in rows):
        note += f"; {openfga.NAME} verifies none"
    return plot.bars(title, note, rows, ours=PDP) if rows else None


def tables(content: Mapping[str, Any]) -> str:
    """All tables, as Markdown."""
    results = Results(content)
    sections = [_head(results), _targets(results)]
    if picture(content) is not None:
        sections.append(f"![Checks per second of one core, side by side]({plan.PLOT.name})")
    if results.series:
        sections.append(_series(results))
    for name, section in _SECTIONS.items():
        if name in results.parts:
            sections.append(section(results.parts[name]))
    return "\n\n".join(sections)


def missing(content: Mapping[str, Any]) -> str:
    """What has no figures, a line each."""
    lines = [f"FAILED {name}: {reason}" for name, reason in content["failed"].items()]
    lines += [f"LEFT OUT {name}: {reason}" for name, reason in content["left_out"].items()]
    return "\n".join(lines)


def _head(results: Results) -> str:
    parts = results.parts.values()
    if not parts:
        return "Nothing has been measured."
    days = sorted({part["measured_at"].partition("T")[0] for part in parts})
    versions: dict[str, str] = {}
    for part in parts:
        versions |= part["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    days_said = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    text = f"{', '.join(sorted({part['processor'] for part in parts}))}, {days_said}. {named}."
    if any(part["quick"] for part in parts):
        text += " **Parts of this were measured with `--quick`: not for comparison.**"
    noise = [measured.others_share for each in results.series for measured in each.rounds]
    if noise:
        share = sorted(noise)[len(noise) // 2]
        text += f" In the median, everything else on the machine used {share:.0%} of a core."
    return text


def _targets(results: Results) -> str:
    def verdict(measured: str, *, reached: bool) -> str:
        if measured == NOT_MEASURED:
            return ""
        return "reached" if reached else "**missed**"

    rows = [
        (each.name, each.measured, each.wanted, verdict(each.measured, reached=each.reached))
        for each in results.targets()
    ]
    return _table(("figure", "measured", "to reach", ""), (_LEFT,) * 4, rows)


def _series(results: Results) -> str:
    head = (
        *("what", "rules", "subject", "checks/s", "p50 ms", "p99 ms", "x Cerbos"),
        *("of its core", "MiB"),
    )
    ordered = sorted(results.series, key=lambda each: (_ORDER.index(each.what), each.rules))
    rows = [_row(each, results.to_cerbos(each)) for each in ordered]
    return _table(head, (_LEFT, _RIGHT, _LEFT, *([_RIGHT] * 6)), rows)


def _row(each: Series, ratio: float | None) -> tuple[str, ...]:
    rate = each.middle("requests_per_second") * each.checks
    what = f"{each.what} of {each.checks:,}" if each.checks > 1 else each.what
    return (
        what,
        f"{each.rules:,}",
        each.subject,
        f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}",
        f"{each.middle('p50_ms'):.3f}",
        f"{each.middle('p99_ms'):.3f}",
        "" if ratio is None else f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}",
        f"{each.middle('core_share'):.0%}",
        f"{max(measured.resident_mib for measured in each.rounds):.0f}",
    )


def _log(found: Mapping[str, Any]) -> str:
    return (
        f"A denial that is unlike all others takes {found['without_us']:.0f} us of processor time, "
        f"and {found['with_us']:.0f} us with a tree over the log. `verify_log.py` verifies "
        f"{found['verified_per_second']:,.0f} records/s of an archive."
    )


def _million(found: Mapping[str, Any]) -> str:
    return (
        f"{found['users']:,} users, each with a grant, on PostgreSQL: loaded in "
        f"{found['load_seconds']:.0f} s, ready in {found['ready_seconds']:.1f} s, "
        f"{found['resident_mib_ready']:.0f} MiB resident then and "
        f"{found['resident_mib_warm']:.0f} MiB after questions about {found['asked']:,} of them."
    )


def _queries(found: Mapping[str, Any]) -> str:
    names = {
        "permissions": "ListAllowedPermissions, 50 resources with 8 permissions each",
        "page": f"ListAllowedResources, first page of 100 out of {found['resources']:,}",
    }
    rows = [
        (name, *(f"{found[key][column]:.1f}" for column in ("p50_ms", "p99_ms")))
        for key, name in names.items()
    ]
    return _table(("query, on PostgreSQL", "p50 ms", "p99 ms"), (_LEFT, _RIGHT, _RIGHT), rows)


def _console(found: Mapping[str, Any]) -> str:
    databases = found["databases"]
    head = [f"page of the console, {found['records']:,} decisions, ms"]
    for each in databases:
        head += [f"{each['database']} p50", "p99"]
    pages = zip(*(each["pages"] for each in databases), strict=True)
    rows = [
        (row[0]["page"], *(f"{page[name]:.0f}" for page in row for name in ("p50_ms", "p99_ms")))
        for row in pages
    ]
    loaded = " and ".join(
        f"{each['load_seconds']:.0f} s on {each['database']}" for each in databases
    )
    table = _table(head, (_LEFT, *([_RIGHT] * 2 * len(databases))), rows)
    return f"{table}\n\nThe company and its decisions are loaded in {loaded}."


def _rls(found: Mapping[str, Any]) -> str:
    names = {
        "by_hand": "the query by hand",
        "filter": "the filter, with SQLAlchemy",
        "row_level_security": "row-level security, the organization in the query too",
        "forgotten": "row-level security, no condition in the query",
        "plan": "making a plan, in the server",
    }
    rows = [
        (name, *(f"{found[key][column]:.2f}" for column in ("p50_ms", "p99_ms")))
        for key, name in names.items()
    ]
    head = (f"50 of {found['rows']:,} rows, on PostgreSQL", "p50 ms", "p99 ms")
    return _table(head, (_LEFT, _RIGHT, _RIGHT), rows)


def _shadow(found: Mapping[str, Any]) -> str:
    without, beside = (median(found[name]) for name in ("without_us", "with_us"))
    return (
        f"A Check takes {without:.1f} us of a core without a candidate policy, and {beside:.1f} us "
        f"while a candidate decides {found['sample']:.0%} of them too: {found['more']:+.1%} "
        "(median of the rounds)."
    )


def _siem(found: Mapping[str, Any]) -> str:
    return (
        f"`pdp audit forward` writes {found['records']:,} records to a file as OCSF at "
        f"{found['records_per_second']:,.0f} records/s "
        f"({found['records_per_core_second']:,.0f} for each second of its processor time, and "
        f"{found['records_per_server_core_second']:,.0f} for each of the server's). Beside "
        f"{found['served_per_second']:,.0f} decisions/s a record is in the file "
        f"{found['lag_p50_ms']:,.0f} ms after its decision in the median, "
        f"{found['lag_p99_ms']:,.0f} ms at the 99th percentile, with `settle_seconds = 0`."
    )


def _webhooks(found: Mapping[str, Any]) -> str:
    head = (
        *("Clerk's messages: database", "messages/s", "the process that received it, p50 / p95 ms"),
        *("Checks still allowed there", "another replica, p50 / p95 ms"),
    )
    rows = [
        (
            each["database"],
            f"{each['messages_per_second']:,.0f}",
            " / ".join(f"{ms:.1f}" for ms in each["here_ms"]),
            f"{each['allowed_here']}",
            " / ".join(f"{ms:.0f}" for ms in each["elsewhere_ms"]),
        )
        for each in found["databases"]
    ]
    return _table(head, (_LEFT, *([_RIGHT] * 4)), rows)


def _edges(found: Mapping[str, Any]) -> str:
    served = f"{found['served_per_second']:,.0f}"
    late = _table(
        (f"a revocation, beside {served} requests/s, at a", "p50 ms", "p99 ms", "at most ms"),
        (_LEFT, _RIGHT, _RIGHT, _RIGHT),
        [
            (each["place"], *(f"{each[name]:.1f}" for name in ("p50_ms", "p99_ms", "max_ms")))
            for each in found["stale"]
        ],
    )
    names = {
        "hit": "sidecar, cached answer",
        "miss": "sidecar, the replica is asked",
        "replica": "that replica, asked directly",
    }
    rates = [
        (
            name,
            f"{found[key]['requests_per_second']:,.0f}",
            f"{found[key]['p50_ms']:.1f}",
            f"{found[key]['core_share']:.0%}",
        )
        for key, name in names.items()
    ]
    hit_us = found["guard_hit_us"]
    rates.append(
        ("guard, cached answer, one thread", f"{1e6 / hit_us:,.0f}", f"{hit_us / 1000:.4f}", "")
    )
    head = ("Check at the edge", "requests/s", "p50 ms", "of its core")
    return late + "\n\n" + _table(head, (_LEFT, _RIGHT, _RIGHT, _RIGHT), rates)


def _guards(found: Mapping[str, Any]) -> str:
    rows = [
        (each["guard"], *(f"{each[name]:.0f}" for name in ("raw_us", "guard_us", "overhead_us")))
        for each in found["guards"]
    ]
    head = ("guard", "its stub, p50 us", "the guard, p50 us", "so the guard costs, us")
    return _table(head, (_LEFT, _RIGHT, _RIGHT, _RIGHT), rows)


_SECTIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "log": _log,
    "million": _million,
    "queries": _queries,
    "console": _console,
    "rls": _rls,
    "shadow": _shadow,
    "siem": _siem,
    "webhooks": _webhooks,
    "edges": _edges,
    "guards": _guards,
}


def _table(head: Sequence[str], rules: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def lines() -> Iterator[str]:
        for row in (head, rules, *rows):
            yield f"| {' | '.join(row)} |"

    return "\n".join(lines())
