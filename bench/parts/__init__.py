"""The parts of the benchmark by name, in the order in which they run."""

from collections.abc import Mapping

from bench.part import Part
from bench.parts import (
    batch,
    check,
    console,
    denials,
    edges,
    guards,
    log,
    million,
    queries,
    rls,
    shadow,
    siem,
    webhooks,
)

_LOAD = ("h2load", "taskset")

PARTS: Mapping[str, Part] = {
    "check": Part("the same question to all, loaded and not", check.measure, _LOAD, True),
    "batch": Part("many checks in one request", batch.measure, _LOAD, True),
    "denials": Part("denials that are recorded first", denials.measure, _LOAD, True),
    "log": Part("the tree over the decision log", log.measure, ("taskset",)),
    "million": Part("a million users on PostgreSQL", million.measure, ("taskset",)),
    "queries": Part("what an actor may do and use", queries.measure, ("taskset",)),
    "console": Part("pages of the console over a long log", console.measure, ("taskset",)),
    "rls": Part("a page of rows through filters and policies", rls.measure, ("taskset",)),
    "shadow": Part("a candidate policy beside the real one", shadow.measure, _LOAD),
    "webhooks": Part("Clerk's messages and revocations", webhooks.measure, ("taskset",)),
    "siem": Part("records forwarded to a SIEM", siem.measure, ("taskset",)),
    "edges": Part("replica, sidecar and caching guard", edges.measure, _LOAD),
    "guards": Part(
        "what guards cost beyond their stubs",
        guards.measure,
        ("taskset",),
        prepare=guards.prepare,
    ),
}
