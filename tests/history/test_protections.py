"""Protections that keep answers fresh are taken out one at a time, and the checker must notice.

The product has no option for that: `weakened.py` tampers with the processes. It also adds pauses,
so that the hole is found soon; with the pauses alone `test_freshness.py` finds nothing.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.history.checker import Kind, Verdict, judge
from tests.history.summary import summary
from tests.history.world import BOUND_SECONDS, World, silence, started_world
from tests.kit import soak
from tests.kit.clusters import Cluster

NEAR_A_RACE = {
    # Given back for a moment only: what is read then must not be kept for when it is gone again.
    "back_seconds": (0.05, 0.3),
    "away_seconds": (3.5, 4.5),
    "weights": {"grant": 1},
    "active": 2,
}
AT_THE_SAME_TIME = {
    # Many commits overlap.
    "back_seconds": (0.5, 1.0),
    "away_seconds": (3.0, 4.0),
    "writers": 10,
}
BEFORE_THE_CUT = {
    # All caches know what is granted when the way is cut, and most of it is revoked soon after.
    "back_seconds": (1.5, 2.5),
    "away_seconds": (3.5, 4.5),
    "active": 2,
    "writable": [1],
}


@dataclass(frozen=True)
class Control:
    """A protection, and a world in which it is needed soon."""

    missing: str
    clients: Mapping[str, Any] = field(default_factory=dict)
    cut: Callable[[World], Any] | None = None
    """The ways that are cut off, a second after the start."""
    at_the_edge: bool = False
    """Whether it is a protection of caches; otherwise it is one of replicas."""
    found: Kind = Kind.STALE


CONTROLS = (
    Control("revision check", NEAR_A_RACE),
    Control("lease", BEFORE_THE_CUT, lambda world: world.databases[:1]),
    Control("in-order revisions", AT_THE_SAME_TIME),
    Control(
        "barrier",
        {**BEFORE_THE_CUT, "barriers": 1.0},
        lambda world: world.databases[:1],
        found=Kind.BARRIER,
    ),
    Control("edge revision check", NEAR_A_RACE, at_the_edge=True),
    Control(
        "edge lease",
        BEFORE_THE_CUT,
        lambda world: [way for ways in world.ways for way in ways],
        at_the_edge=True,
    ),
)


@pytest.mark.soak
def test_the_checker_notices_that_a_protection_is_missing(
    cluster: Cluster, subtests: pytest.Subtests
) -> None:
    """`make soak` takes out each; `make test` one, another one in each run."""
    for control in random.sample(CONTROLS, soak.count(len(CONTROLS), sample=1)):
        with subtests.test(control.missing):
            notices(cluster, control)


def notices(cluster: Cluster, control: Control) -> None:
    """A busy machine asks too seldom for one world to be enough."""
    for seed in "123":
        verdict, what_happened = history_without(control, cluster, seed)
        if verdict.count(control.found):
            return
    raise AssertionError(what_happened)


def history_without(control: Control, cluster: Cluster, seed: str) -> tuple[Verdict, str]:
    """What the checker says of a world without the protection, and a summary of it."""
    words = [control.missing]
    clients = {"barriers": 0.0, **control.clients}
    with started_world(seed=seed, cluster=cluster) as world:
        if control.at_the_edge:
            world.start_replicas(2)
            world.places.clear()
            world.add_guards(cache=True)
            world.start_sidecar(0, tampered=words)
            world.start_clients(1, tampered=words, **clients)
        else:
            world.start_replicas(2, tampered={0: words, 1: words})
            world.start_clients(1, **clients)
        cut = control.cut
        faults = None if cut is None else {"cut": lambda _: silence(cut(world), 5)}
        world.run(seconds=5, faults=faults)
        history = world.history()
    verdict = judge(history, BOUND_SECONDS)
    return verdict, summary(history, verdict, world.occurred, seed)
