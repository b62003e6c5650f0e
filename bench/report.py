"""The table, the same rows as JSON, and whether the targets are reached."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench import cerbos, plan
from bench.edges import Edges
from bench.guards import Overhead
from bench.million import Million
from bench.rounds import BATCH, CERBOS, CHECK, DENIALS, ENVOY, PDP, UNLOADED, Series
from bench.webhooks import Told

MIB_MAX = 400
READY_SECONDS_MAX = 10
CHECKS_PER_SECOND_MIN = 100_000
DENIALS_PER_SECOND_MIN = 5_000
RATIO_MIN = 2.0
P50_RATIO_MAX = 0.5
P50_DRIFT_MAX = 0.10
STALE_P99_MS_MAX = 100
GUARD_HIT_US_MAX = 10


@dataclass(frozen=True, slots=True)
class Target:
    """One figure to reach."""

    name: str
    wanted: str
    measured: str
    reached: bool


class Report:
    """All that was measured, and what it says."""

    def __init__(
        self,
        series: Sequence[Series],
        million: Million,
        told: Sequence[Told],
        edges: Edges,
        overheads: Sequence[Overhead],
    ) -> None:
        self._series = series
        self._million = million
        self._told = told
        self._edges = edges
        self._overheads = overheads
        self._by_key = {(one.subject, one.what, one.rules): one for one in series}

    def targets(self) -> list[Target]:
        """The figures that this project promises, reached or missed, by each front door."""
        found = []
        for subject in (PDP, ENVOY):
            found += self._targets_of(subject)
        return [*found, *self._targets_of_sizes(), *self._targets_of_edges()]

    def _targets_of(self, subject: str) -> list[Target]:
        rules = min(one.rules for one in self._series)
        # The smaller of the two: as it was, and as if each had had the whole core.
        faster = min(
            self._ratio(subject, CHECK, rules, "requests_per_second"),
            self._ratio(subject, CHECK, rules, "requests_per_core_second"),
        )
        sooner = self._ratio(subject, UNLOADED, rules, "p50_ms")
        checks = self._per_second(subject, BATCH, rules) * plan.BATCH_ITEMS
        denials = self._per_second(subject, DENIALS, rules)
        return [
            Target(
                f"{subject}: requests/s against Cerbos",
                f"at least {RATIO_MIN}x",
                f"{faster:.2f}x",
                faster >= RATIO_MIN,
            ),
            Target(
                f"{subject}: unloaded p50 against Cerbos",
                f"at most {P50_RATIO_MAX}x",
                f"{sooner:.2f}x",
                sooner <= P50_RATIO_MAX,
            ),
            Target(
                f"{subject}: BatchCheck",
                f"at least {CHECKS_PER_SECOND_MIN:,} checks/s",
                f"{checks:,.0f}/s",
                checks >= CHECKS_PER_SECOND_MIN,
            ),
            Target(
                f"{subject}: durable denials",
                f"at least {DENIALS_PER_SECOND_MIN:,}/s",
                f"{denials:,.0f}/s",
                denials >= DENIALS_PER_SECOND_MIN,
            ),
        ]

    def _targets_of_sizes(self) -> list[Target]:
        sizes = sorted({one.rules for one in self._series})
        small, large = sizes[0], sizes[-1]
        first, last = (
            self._by_key[PDP, UNLOADED, rules].middle("p50_ms") for rules in (small, large)
        )
        drift = abs(last / first - 1)
        million = self._million
        memory = max(million.resident_mib_ready, million.resident_mib_warm)
        return [
            Target(
                f"unloaded p50 from {small:,} to {large:,} rules",
                "within 10%",
                f"{first:.3f} -> {last:.3f} ms ({drift:+.0%})"
                if len(sizes) > 1
                else "not measured",
                len(sizes) > 1 and drift <= P50_DRIFT_MAX,
            ),
            Target(
                f"memory with {million.users:,} users and grants",
                f"under {MIB_MAX} MiB",
                f"{memory:.0f} MiB",
                memory < MIB_MAX,
            ),
            Target(
                "ready with them",
                f"under {READY_SECONDS_MAX} s",
                f"{million.ready_seconds:.1f} s",
                million.ready_seconds < READY_SECONDS_MAX,
            ),
        ]

    def _targets_of_edges(self) -> list[Target]:
        edges = self._edges
        served = edges.served_per_second
        enough = served >= 0.95 * plan.SERVED_PER_SECOND
        found = [
            Target(
                f"staleness p99 at a {one.place}, {served:,.0f} requests/s served",
                f"under {STALE_P99_MS_MAX} ms at {plan.SERVED_PER_SECOND:,}",
                f"{one.p99_ms:.0f} ms",
                enough and one.p99_ms < STALE_P99_MS_MAX,
            )
            for one in edges.stale
        ]
        hit = Target(
            "hit of a caching guard",
            f"under {GUARD_HIT_US_MAX} us",
            f"{edges.guard_hit_us:.1f} us",
            edges.guard_hit_us < GUARD_HIT_US_MAX,
        )
        return [*found, hit]

    def show(self, console: Console) -> None:
        """Prints the table and the targets."""
        table = Table(box=None, pad_edge=False)
        table.add_column("what")
        table.add_column("rules", justify="right")
        table.add_column("subject")
        for name in ("requests/s", "p50 ms", "p99 ms", "x Cerbos", "core", "others", "RSS MiB"):
            table.add_column(name, justify="right")
        order = [CHECK, UNLOADED, BATCH, DENIALS]
        for one in sorted(self._series, key=lambda each: (order.index(each.what), each.rules)):
            table.add_row(one.what, f"{one.rules:,}", one.subject, *self._cells(one))
        console.print(table)
        console.print(
            "Medians of the rounds. x Cerbos: requests/s, median of the ratios within each round. "
            "core: part of its core that the subject used. others: cores that everything else on "
            "the machine used; above 10% the figures are disturbed."
        )
        million = self._million
        console.print(
            f"\n{million.users:,} users, each with a grant, on PostgreSQL: loaded in "
            f"{million.load_seconds:.0f} s, ready in {million.ready_seconds:.1f} s, "
            f"{million.resident_mib_ready:.0f} MiB resident then and "
            f"{million.resident_mib_warm:.0f} MiB after questions about {million.asked:,} of them\n"
        )
        for told in self._told:
            console.print(
                f"webhooks on {told.database}: {told.messages_per_second:,.0f} messages/s "
                f"committed; from the 200 to a revocation to the first Check that denies "
                f"{told.here_ms[0]:.1f} ms (95%: {told.here_ms[1]:.1f}, {told.allowed_here} "
                f"allowed in between), in another replica {told.elsewhere_ms[0]:.0f} ms (95%: "
                f"{told.elsewhere_ms[1]:.0f})"
            )
        self._show_edges(console)
        for one in self._overheads:
            console.print(
                f"guard in {one.guard}: {one.guard_us:.0f} us a question, of its stub "
                f"{one.raw_us:.0f} us, so the guard costs {one.overhead_us:.0f} us"
            )
        console.print()
        for target in self.targets():
            word = "[green]reached[/green]" if target.reached else "[red]MISSED [/red]"
            console.print(f"{word} {target.name}: {target.measured} (wanted: {target.wanted})")

    def _show_edges(self, console: Console) -> None:
        edges = self._edges
        for one in edges.stale:
            console.print(
                f"from COMMIT of a revocation to the last wrong answer at a {one.place}: p50 "
                f"{one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms, at most {one.max_ms:.1f} ms of "
                f"{one.revocations} ({edges.served_per_second:,.0f} requests/s served meanwhile)"
            )
        for what, rate in (
            ("sidecar, hit", edges.hit),
            ("sidecar, miss", edges.miss),
            ("the replica behind it", edges.replica),
        ):
            console.print(
                f"{what}: {rate.requests_per_second:,.0f} requests/s, p50 {rate.p50_ms:.1f} ms, "
                f"{rate.core_share:.0%} of the core"
            )
        console.print(
            f"caching guard, hit: {edges.guard_hit_us:.1f} us, "
            f"{1e6 / edges.guard_hit_us:,.0f}/s on one thread"
        )

    def write(self, file: Path) -> None:
        """The same rows as JSON, with every round."""
        rows = [
            {
                "subject": one.subject,
                "what": one.what,
                "rules": one.rules,
                "requests_per_second": one.middle("requests_per_second"),
                "p50_ms": one.middle("p50_ms"),
                "p99_ms": one.middle("p99_ms"),
                "ratio_to_cerbos": self._ratio_if_any(one),
                "core_share": one.middle("core_share"),
                "others_share": one.middle("others_share"),
                "resident_mib": one.resident_mib,
                "rounds": [asdict(measured) for measured in one.rounds],
            }
            for one in self._series
        ]
        report = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"processor": _processor(), "python": platform.python_version()},
            "versions": {
                "pdp": version("pdp"),
                "cerbos": cerbos.VERSION,
                "casbin": version("casbin"),
            },
            "rows": rows,
            "million": asdict(self._million),
            "webhooks": [asdict(one) for one in self._told],
            "edges": asdict(self._edges),
            "guards": [asdict(one) for one in self._overheads],
            "targets": [asdict(target) for target in self.targets()],
        }
        file.write_text(json.dumps(report, indent=2) + "\n")

    def _cells(self, one: Series) -> list[str]:
        ratio = self._ratio_if_any(one)
        rate = one.middle("requests_per_second")
        return [
            f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}",
            f"{one.middle('p50_ms'):.3f}",
            f"{one.middle('p99_ms'):.3f}",
            "" if ratio is None else f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.4f}",
            f"{one.middle('core_share'):.0%}",
            f"{one.middle('others_share'):.0%}",
            f"{one.resident_mib:.0f}",
        ]

    def _ratio_if_any(self, one: Series) -> float | None:
        if (CERBOS, one.what, one.rules) not in self._by_key:
            return None
        return self._ratio(one.subject, one.what, one.rules, "requests_per_second")

    def _ratio(self, subject: str, what: str, rules: int, name: str) -> float:
        """Median of the ratios within each round."""
        ours = self._by_key[subject, what, rules].rounds
        theirs = self._by_key[CERBOS, what, rules].rounds
        pairs = zip(ours, theirs, strict=True)
        return float(median(getattr(a, name) / getattr(b, name) for a, b in pairs))

    def _per_second(self, subject: str, what: str, rules: int) -> float:
        return self._by_key[subject, what, rules].middle("requests_per_second")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.processor()
