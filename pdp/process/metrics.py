"""The metrics of a process. docs/metrics.md lists the names; labels are bounded sets."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from pdp.facts import FlipGroup
from pdp.gauges import Gauges
from pdp.model import Decision, Effect, Reason

_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)

_RULES_MAX = 100
_OTHER_RULES = "other"
"""The label of rules beyond the first `_RULES_MAX`, to limit the number of series."""


class Metrics:
    """The metrics of a process; with `directory`, of all processes that share it."""

    def __init__(self, *gauges: Gauges, directory: str | None = None) -> None:
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
        self._decisions = prometheus_client.Counter(
            "pdp_decisions",
            "Decisions given.",
            ("effect", "reason"),
            registry=self._registry,
        )
        self._too_expensive = prometheus_client.Counter(
            "pdp_conditions_too_expensive",
            "Conditions that were not evaluated because it would have cost too much.",
            ("rule",),
            registry=self._registry,
        )
        self._shadow = prometheus_client.Counter(
            "pdp_shadow_decisions",
            "Decisions that the candidate policy of the shadow made too, or could not make.",
            ("outcome",),
            registry=self._registry,
        )
        self._shadow_flips = prometheus_client.Counter(
            "pdp_shadow_flips",
            "Answers that the candidate policy of the shadow would change.",
            ("permission", "effect", "rule"),
            registry=self._registry,
        )
        self._webhooks = prometheus_client.Counter(
            "pdp_webhooks",
            "Webhook requests answered.",
            ("type", "outcome"),
            registry=self._registry,
        )
        self._gauges = [
            # Of several processes, the worst value counts.
            (Gauge(name, meaning, registry=self._registry, multiprocess_mode="livemax"), read)
            for declared in gauges
            for name, (meaning, read) in declared.items()
        ]
        self._certificates = Gauge(
            "pdp_certificate_expiry_timestamp_seconds",
            "When a certificate in use ends.",
            ("certificate",),
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        # `labels()` validates and locks at each call; the hot path uses this cache.
        self._rpc_children: dict[tuple[str, str], Any] = {}
        self._decided: Counter[tuple[Effect, Reason]] = Counter()
        """All decisions so far. The counters of the library follow at `refresh`: each takes a lock
        for each decision."""
        self._reported: Counter[tuple[Effect, Reason]] = Counter()
        self._reporting = threading.Lock()
        self._too_expensive_rules: set[str] = set()
        self._shadow_groups: set[tuple[str, str, str]] = set()

    def observe_rpc(self, method: str, code: str, seconds: float) -> None:
        """Counts one RPC."""
        child = self._rpc_children.get((method, code))
        if child is None:
            child = self._rpc_children[method, code] = self._rpcs.labels(method, code)
        child.observe(seconds)

    def count_decisions(self, decisions: Sequence[Decision]) -> None:
        """Counts the decisions of one request, on the event loop."""
        for decision in decisions:
            for rule in decision.too_expensive:
                self.count_too_expensive(rule)
            self._decided[decision.effect, decision.reason] += 1

    def count_too_expensive(self, rule: str) -> None:
        """Counts a condition that was not evaluated because of its cost."""
        rules = self._too_expensive_rules
        if len(rules) < _RULES_MAX:
            rules.add(rule)
        self._too_expensive.labels(rule if rule in rules else _OTHER_RULES).inc()

    def count_shadow(self, outcome: str, group: FlipGroup | None, times: int = 1) -> None:
        """Counts outcomes of the shadow, and the group of a flip."""
        self._shadow.labels(outcome).inc(times)
        if group is not None:
            rule = group.rule_after or group.rule_before
            labels = (group.permission, group.effect, rule)
            known = self._shadow_groups
            if len(known) < _RULES_MAX:
                known.add(labels)
            if labels not in known:
                labels = (_OTHER_RULES, group.effect, _OTHER_RULES)
            self._shadow_flips.labels(*labels).inc(times)

    def count_webhook(self, type_: str, outcome: str) -> None:
        """Counts one webhook request. Both come from fixed sets."""
        self._webhooks.labels(type_, outcome).inc()

    def set_certificates(self, ends: Mapping[str, float]) -> None:
        """Sets the expiry (Unix seconds) of the certificates in use, by name from a fixed set."""
        for name, ends_at in ends.items():
            self._certificates.labels(name).set(ends_at)

    def refresh(self) -> None:
        """Reads the gauges and counts; the process that owns them calls it regularly."""
        with self._reporting:
            # Only the event loop writes `_decided`, only this writes `_reported`: no count is lost.
            for key, times in list(self._decided.items()):
                effect, reason = key
                new = times - self._reported[key]
                self._decisions.labels(effect.value, reason.name).inc(new)
                self._reported[key] = times
        for gauge, read in self._gauges:
            gauge.set(read())

    def text(self) -> bytes:
        """All metrics in Prometheus' exposition format."""
        self.refresh()
        return generate_latest(self._exposed)
