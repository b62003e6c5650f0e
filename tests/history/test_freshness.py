"""Whatever fails, no answer is older than the bound. `test_protections.py` shows that the checker
would notice.

Three replicas on PostgreSQL, one with its clock 3 s ahead and one that pauses where races would
show, two sidecars, guards with and without a cache, and writers that grant and revoke. Each kind of
fault happens at least once in `make soak`; in `make test` three kinds do, others in each run. The
seed is in the summary of a failure: `python -m tests.history --seed N`.
"""

import random

import pytest

from tests.history.checker import Outcome, judge
from tests.history.summary import summary
from tests.history.world import BOUND_SECONDS, started_world
from tests.kit import soak
from tests.kit.clusters import Cluster

OPERATIONS = soak.count(10_000, sample=400)
PAUSE_SECONDS = 0.01 if soak.SOAK else 0.1
"""Of each thread, after each check."""
CACHING = ("caching guard", "sidecar 0", "sidecar 1", "sidecar 0 batch", "sidecar 1 batch")


@pytest.mark.soak
def test_no_allow_is_older_than_the_bound_whatever_fails(cluster: Cluster) -> None:
    seed = str(random.randrange(10**6))
    with started_world(seed=seed, cluster=cluster) as world:
        world.start_everything(OPERATIONS, pause_seconds=PAUSE_SECONDS)
        every = world.faults()
        faults = dict(random.sample(list(every.items()), soak.count(len(every), sample=3)))
        world.run(operations=OPERATIONS, faults=faults)
        history = world.history()
    verdict = judge(history, BOUND_SECONDS)
    said = summary(history, verdict, world.occurred, seed)
    print(said)  # noqa: T201
    assert not verdict.violations, said
    # And it was no idle run.
    assert history.operations >= OPERATIONS, said
    assert set(world.occurred) == set(faults), said
    allowed = {check.place for check in history.checks if check.outcome is Outcome.ALLOW}
    assert allowed == {place.name for place in world.places}, said
    for place in CACHING:
        assert any(check.cached for check in history.checks if check.place == place), said
