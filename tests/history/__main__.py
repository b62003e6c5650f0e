"""A run of any length: `python -m tests.history --operations 100000`."""

import argparse
import random
import sys

from tests.history.checker import judge
from tests.history.summary import summary
from tests.history.world import BOUND_SECONDS, started_world
from tests.kit.clusters import started_cluster


def main() -> int:
    """Returns 1 if the checker finds a violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.history", description=__doc__)
    parser.add_argument("--operations", type=int, default=10_000, help="at least so many")
    parser.add_argument("--seconds", type=float, default=20, help="at least so long")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="of an earlier run")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)  # noqa: T201
    with started_cluster() as cluster, started_world(seed=chosen.seed, cluster=cluster) as world:
        world.start_everything(chosen.operations)
        world.run(
            seconds=chosen.seconds,
            operations=chosen.operations,
            seconds_max=3_000,
            faults=world.faults(),
        )
        history = world.history()
    verdict = judge(history, BOUND_SECONDS)
    print(summary(history, verdict, world.occurred, chosen.seed))  # noqa: T201
    return bool(verdict.violations)


if __name__ == "__main__":
    sys.exit(main())
