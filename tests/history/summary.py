"""The summary of a run, for people."""

from collections import Counter
from collections.abc import Iterator, Mapping

from tests.history.checker import History, Outcome, Verdict, Violation

EXAMPLES_MAX = 5
AROUND_SECONDS = 5.0


def summary(history: History, verdict: Verdict, occurred: Mapping[str, int], seed: str) -> str:
    """Operations, what occurred, a line for each place, and examples of what was found."""
    return "\n".join(_lines(history, verdict, occurred, seed))


def _lines(
    history: History, verdict: Verdict, occurred: Mapping[str, int], seed: str
) -> Iterator[str]:
    unknown = sum(write.returned is None for write in history.writes)
    yield (
        f"seed {seed}: {history.operations:,} operations: {len(history.writes):,} writes"
        f" ({unknown} without an answer), {len(history.barriers):,} barriers,"
        f" {len(history.checks):,} checks"
    )
    yield "occurred: " + (
        ", ".join(f"{name} {n}" for name, n in sorted(occurred.items())) or "nothing"
    )
    row = "{:16}{:>9}{:>9}{:>12}{:>14}{:>21}"
    yield row.format("place", "allowed", "denied", "no answer", "from a cache", "stalest allow, s")
    counts = Counter((check.place, check.outcome) for check in history.checks)
    cached = Counter(check.place for check in history.checks if check.cached)
    for place in sorted({check.place for check in history.checks}):
        yield row.format(
            place,
            *(counts[place, outcome] for outcome in Outcome),
            cached[place],
            f"{max(verdict.staleness.get(place, ()), default=0):.3f}",
        )
    kinds = Counter(violation.kind.value for violation in verdict.violations)
    found = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
    yield f"violations: {len(verdict.violations)}" + (f" ({found})" if found else "")
    for violation in verdict.violations[:EXAMPLES_MAX]:
        yield from _example(history, violation)


def _example(history: History, violation: Violation) -> Iterator[str]:
    check = violation.check
    yield (
        f"  {violation.kind.value}: {check.place} said {check.outcome.value} ({check.said}) at"
        f" revision {check.revision}, asked for {check.at_least_revision}, cached {check.cached};"
        f" {violation.staleness:.3f} s stale; took {check.ended - check.began:.3f} s"
    )
    for write in sorted(history.writes, key=lambda write: write.invoked):
        since = check.began - write.invoked
        if write.fact in check.needs and -AROUND_SECONDS < since < AROUND_SECONDS:
            took = "?" if write.returned is None else f"{write.returned - write.invoked:.3f}"
            yield (
                f"    {since:+.3f} s before: {write.fact} {'holds' if write.holds else 'ends'},"
                f" took {took} s, revision {write.revision}"
            )
