"""Contents of `build/bench.json` that nobody measured."""

from dataclasses import asdict
from typing import Any

from bench import plan
from bench.load import Measurement
from bench.series import Series


def measurement(rate: float, p50_ms: float = 1.0, core_share: float = 1.0) -> Measurement:
    return Measurement(
        requests_per_second=rate,
        p50_ms=p50_ms,
        p99_ms=2 * p50_ms,
        core_share=core_share,
        others_share=0.01,
        requests=1_000,
        resident_mib=100,
    )


def series(
    subject: str, what: str, *rounds: Measurement, rules: int = plan.RULES, checks: int = 1
) -> dict[str, Any]:
    return asdict(Series(subject, what, rules, checks, rounds))


def content(*rows: dict[str, Any], part: str = "check", **figures: Any) -> dict[str, Any]:
    stamp = {
        "measured_at": "2026-01-02T03:04:05+00:00",
        "quick": False,
        "processor": "A processor",
        "versions": {"python": "3.11", "Cerbos": "0.55.0"},
    }
    return {
        "parts": {part: {**stamp, "series": list(rows), **figures}},
        "failed": {},
        "left_out": {},
    }
