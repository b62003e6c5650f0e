"""The contents of `build/bench.json`: series, ratios between subjects, and the reached targets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench import plan
from bench.series import (
    ALLOWS,
    BATCH,
    BESIDE_BATCHES,
    CERBOS,
    DENIALS,
    LOADED,
    PDP,
    UNLOADED,
    Series,
)

CERBOS_RATIO_MIN = 4.0
FASTEST_RATIO_MIN = 3.0
P50_RATIO_MAX = 0.40
BATCH_RATIO_MIN = 6.0
CHECKS_PER_SECOND_MIN = 100_000
DENIALS_RATIO_MIN = 3.0
DENIALS_SHARE_MIN = 0.7
BESIDE_P99_MS_MAX = 25.0
APPEND_RATIO_MAX = 1.05
VERIFY_RATIO_MIN = 0.5
MIB_MAX = 160
DRIFT_MAX = 0.10
MILLION_MIB_MAX = 400
READY_SECONDS_MAX = 10
STALE_P99_MS_MAX = 100
GUARD_HIT_US_MAX = 10
PAGE_P99_MS_MAX = 50
BY_HAND_RATIO_MAX = 1.5
BY_HAND_MS_MORE_MAX = 0.5
PLAN_MS_MAX = 1
CONSOLE_MS_MAX = 300
FORWARDED_PER_SECOND_MIN = 20_000

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Target:
    """One figure to reach."""

    name: str
    wanted: str
    measured: str = NOT_MEASURED
    reached: bool = False


class Results:
    """The content of the file. What was not measured is None."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.parts: Mapping[str, Any] = content["parts"]
        self.series = [
            Series.from_json(row) for part in self.parts.values() for row in part.get("series", ())
        ]
        self._by_key = {(each.subject, each.what, each.rules): each for each in self.series}

    def find(self, subject: str, what: str, rules: int = plan.RULES) -> Series | None:
        """The series of a subject."""
        return self._by_key.get((subject, what, rules))

    def ratio(self, ours: Series, theirs: Series | None, name: str) -> float | None:
        """Median of the ratios within each round; of rates, per check and not per request."""
        if theirs is None:
            return None
        scale = ours.checks / theirs.checks if name.startswith("requests_per") else 1.0
        pairs = zip(ours.rounds, theirs.rounds, strict=True)
        return float(median(getattr(a, name) / getattr(b, name) * scale for a, b in pairs))

    def faster(self, ours: Series | None, theirs: Series | None) -> float | None:
        """How many times as fast: the smaller of the ratio as it was measured, and of the ratio as
        if each had had its whole core."""
        if ours is None or theirs is None:
            return None
        names = ("requests_per_second", "requests_per_core_second")
        ratios = [self.ratio(ours, theirs, name) for name in names]
        return min(ratio for ratio in ratios if ratio is not None)

    def to_cerbos(self, ours: Series) -> float | None:
        """How many times as many checks a second as Cerbos."""
        theirs = self.find(CERBOS, ours.what, ours.rules)
        return self.ratio(ours, theirs, "requests_per_second")

    def targets(self) -> list[Target]:
        """All of them, in the order of the page."""
        return [
            *self._of_check(),
            *self._of_batches(),
            *self._of_denials(),
            *self._of_log(),
            *self._of_size(),
            *self._of_million(),
            *self._of_queries(),
            *self._of_console(),
            *self._of_rls(),
            *self._of_siem(),
            *self._of_edges(),
        ]

    def _of_check(self) -> Iterator[Target]:
        ours = self.find(PDP, LOADED)
        ratio = self.faster(ours, self.find(CERBOS, LOADED))
        yield _at_least("Check, requests/s, to Cerbos", ratio, CERBOS_RATIO_MIN, "x")
        others = [
            (self.faster(ours, each), each.subject)
            for each in self.series
            if each.what == LOADED and each.rules == plan.RULES and each.subject != PDP
        ]
        name = "Check, requests/s, to the fastest peer"
        measured = [(ratio, subject) for ratio, subject in others if ratio is not None]
        least, subject = min(measured, default=(None, ""))
        yield _at_least(f"{name}, {subject}".rstrip(", "), least, FASTEST_RATIO_MIN, "x")
        alone, theirs = self.find(PDP, UNLOADED), self.find(CERBOS, UNLOADED)
        p50 = None if alone is None else self.ratio(alone, theirs, "p50_ms")
        yield _at_most("Check unloaded, p50, to Cerbos", p50, P50_RATIO_MAX, "x", 2)

    def _of_batches(self) -> Iterator[Target]:
        ours, theirs = self.find(PDP, BATCH), self.find(CERBOS, BATCH)
        name = f"BatchCheck of {plan.BATCH_ITEMS:,}, checks/s"
        of_cerbos = f"{name}, to Cerbos' CheckResources of {plan.CERBOS_BATCH_ITEMS}"
        yield _at_least(of_cerbos, self.faster(ours, theirs), BATCH_RATIO_MIN, "x")
        in_process_us = self.parts.get("batch", {}).get("in_process_us")
        at = (
            f"{CHECKS_PER_SECOND_MIN:,} where a Check in process takes {plan.IN_PROCESS_CHECK_US:g}"
        )
        if ours is None or in_process_us is None:
            yield Target(name, f">= {at} us")
        else:
            rate = ours.middle("requests_per_second") * ours.checks
            least = CHECKS_PER_SECOND_MIN * plan.IN_PROCESS_CHECK_US / in_process_us
            wanted = f">= {least:,.0f}, as one takes {in_process_us:.1f} us here ({at} us)"
            yield Target(name, wanted, f"{rate:,.0f}", rate >= least)
        beside = self.find(PDP, BESIDE_BATCHES)
        p99 = None if beside is None else beside.middle("p99_ms")
        yield _at_most("Check beside such BatchChecks, p99", p99, BESIDE_P99_MS_MAX, " ms")

    def _of_denials(self) -> Iterator[Target]:
        ours = self.find(PDP, DENIALS)
        ratio = self.faster(ours, self.find(CERBOS, DENIALS))
        name = "durable denials/s, to Cerbos with its decision log in a file"
        yield _at_least(name, ratio, DENIALS_RATIO_MIN, "x")
        share = None
        if ours is not None:
            share = self.ratio(ours, self.find(PDP, ALLOWS), "requests_per_second")
        yield _at_least("durable denials/s, to this PDP's allows", share, DENIALS_SHARE_MIN, "x")

    def _of_log(self) -> Iterator[Target]:
        found = self.parts.get("log")
        ratio = found and found["append_ratio"]
        name = "processor time of a denial with a tree over the log, to one without"
        yield _at_most(name, ratio, APPEND_RATIO_MAX, "x", 3)
        share = found and found["verify_ratio"]
        name = "verification of an archive, records/s, to its hashes alone"
        yield _at_least(name, share, VERIFY_RATIO_MIN, "x")

    def _of_size(self) -> Iterator[Target]:
        small = self.find(PDP, LOADED)
        memory = None if small is None else max(each.resident_mib for each in small.rounds)
        yield _at_most(f"memory with {plan.RULES:,} rules", memory, MIB_MAX, " MiB", 0)
        name, wanted = "Check unloaded, p50, from 1,100 to 110,000 rules", "within 10%"
        first, last = self.find(PDP, UNLOADED), self.find(PDP, UNLOADED, 110_000)
        if first is None or last is None:
            yield Target(name, wanted)
        else:
            drift = (self.ratio(last, first, "p50_ms") or 0.0) - 1
            yield Target(name, wanted, f"{drift:+.0%}", abs(drift) <= DRIFT_MAX)

    def _of_million(self) -> Iterator[Target]:
        found = self.parts.get("million")
        memory = found and max(found["resident_mib_ready"], found["resident_mib_warm"])
        users = f"{found['users']:,} users and grants" if found else "a million users and grants"
        yield _at_most(f"memory with {users}", memory, MILLION_MIB_MAX, " MiB", 0)
        yield _at_most("ready with them", found and found["ready_seconds"], READY_SECONDS_MAX, " s")

    def _of_queries(self) -> Iterator[Target]:
        found = self.parts.get("queries")
        stored = f"{found['resources']:,}" if found else "a million"
        name = f"first 100 of the 1,000 resources that an actor may use, out of {stored}, p99"
        yield _at_most(name, found and found["page"]["p99_ms"], PAGE_P99_MS_MAX, " ms")

    def _of_console(self) -> Iterator[Target]:
        found = self.parts.get("console")
        records = f"{found['records']:,}" if found else "2,000,000"
        slowest = None
        if found is not None:
            slowest = max(page["p99_ms"] for each in found["databases"] for page in each["pages"])
        name = f"the slowest page of the console over {records} decisions, p99"
        yield _at_most(name, slowest, CONSOLE_MS_MAX, " ms", 0)

    def _of_rls(self) -> Iterator[Target]:
        found = self.parts.get("rls")
        rows = f"{found['rows']:,}" if found else "a million"
        names = {"filter": "a filter", "row_level_security": "row-level security"}
        for key, name in names.items():
            what = f"50 of {rows} rows through {name}, p50, to the query by hand"
            wanted = f"<= {BY_HAND_RATIO_MAX:g}, or {BY_HAND_MS_MORE_MAX:g} ms more"
            if found is None:
                yield Target(what, wanted)
                continue
            ours, by_hand = (found[name]["p50_ms"] for name in (key, "by_hand"))
            reached = ours <= max(BY_HAND_RATIO_MAX * by_hand, by_hand + BY_HAND_MS_MORE_MAX)
            measured = f"{ours / by_hand:.2f} ({ours - by_hand:+.2f} ms)"
            yield Target(what, wanted, measured, reached)
        making = found and found["plan"]["p50_ms"]
        yield _at_most("making a plan, p50", making, PLAN_MS_MAX, " ms", 2)

    def _of_siem(self) -> Iterator[Target]:
        found = self.parts.get("siem", {})
        for name, key in (
            ("records/s forwarded to a file as OCSF", "records_per_second"),
            ("the same, for each core of the forwarder", "records_per_core_second"),
        ):
            rate, wanted = found.get(key), f">= {FORWARDED_PER_SECOND_MIN:,}"
            if rate is None:
                yield Target(name, wanted)
            else:
                yield Target(name, wanted, f"{rate:,.0f}", rate >= FORWARDED_PER_SECOND_MIN)

    def _of_edges(self) -> Iterator[Target]:
        found = self.parts.get("edges")
        name = f"a revocation everywhere, p99, beside {plan.SERVED_PER_SECOND:,} requests/s"
        if found is None:
            yield _at_most(name, None, STALE_P99_MS_MAX, " ms", 0)
        else:
            # Without its load the figure is not the one that is promised.
            enough = found["served_per_second"] >= 0.95 * plan.SERVED_PER_SECOND
            worst = max(each["p99_ms"] for each in found["stale"])
            target = _at_most(name, worst, STALE_P99_MS_MAX, " ms", 0)
            yield Target(name, target.wanted, target.measured, enough and target.reached)
        hit = found and found["guard_hit_us"]
        yield _at_most("a cached answer of a guard", hit, GUARD_HIT_US_MAX, " us")


def _at_least(name: str, value: float | None, least: float, unit: str) -> Target:
    wanted = f">= {least:g}{unit}"
    if value is None:
        return Target(name, wanted)
    return Target(name, wanted, f"{value:.2f}{unit}", value >= least)


def _at_most(name: str, value: float | None, most: float, unit: str, digits: int = 1) -> Target:
    wanted = f"<= {most:g}{unit}"
    if value is None:
        return Target(name, wanted)
    return Target(name, wanted, f"{value:.{digits}f}{unit}", value <= most)
