"""What operators watch. Names are listed in docs/operations.md; labels are bounded sets."""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)

Gauges = Mapping[str, tuple[str, Callable[[], float]]]
"""Gauge name -> (what it means, what reads it)."""


class Metrics:
    """The metrics of one process; with `directory`, of all processes that share it."""

    def __init__(self, gauges: Gauges, directory: str | None = None) -> None:
        self._registry = CollectorRegistry()
        self._exposed = self._registry
        if directory is not None:
            self._exposed = CollectorRegistry()
            MultiProcessCollector(self._exposed, path=directory)  # type: ignore[no-untyped-call]
        self._rpcs = Histogram(
            "pdp_rpc_seconds",
            "Time from a received request to its answer.",
            ("method", "code"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._decisions = Counter(
            "pdp_decisions",
            "Decisions given.",
            ("effect", "reason"),
            registry=self._registry,
        )
        self._gauges = [
            # In several processes, the worst of them is what matters.
            (Gauge(name, meaning, registry=self._registry, multiprocess_mode="livemax"), read)
            for name, (meaning, read) in gauges.items()
        ]
        # `labels()` validates and locks at each call; the hot path looks its child up here.
        self._rpc_children: dict[tuple[str, str], Any] = {}
        self._decision_children: dict[tuple[str, str], Any] = {}

    def observe_rpc(self, method: str, code: str, seconds: float) -> None:
        """Counts one RPC."""
        child = self._rpc_children.get((method, code))
        if child is None:
            child = self._rpc_children[method, code] = self._rpcs.labels(method, code)
        child.observe(seconds)

    def count_decisions(self, effect: str, reason: str, times: int) -> None:
        """Counts decisions of one reason."""
        child = self._decision_children.get((effect, reason))
        if child is None:
            child = self._decision_children[effect, reason] = self._decisions.labels(effect, reason)
        child.inc(times)

    def refresh(self) -> None:
        """Reads the gauges; called often enough by the process that owns them."""
        for gauge, read in self._gauges:
            gauge.set(read())

    def text(self) -> bytes:
        """All metrics in Prometheus' exposition format."""
        self.refresh()
        return generate_latest(self._exposed)
