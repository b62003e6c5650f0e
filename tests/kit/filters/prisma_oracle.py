"""Holds the adapter for Prisma against decisions: rows and plans for a Node process.

    python -m tests.kit.filters.prisma_oracle

The first line of standard output is the URL of a database. Then, for each set of rows, a line with
a list of plans in their JSON form goes out, and a line with a list comes in: for each plan the ids
of the rows that it takes, or the reason why it cannot be expressed. The last line counts the worlds
by kind. Exits with 1 at the first difference.
"""

import json
import sys
from collections import Counter
from random import Random

from google.protobuf.json_format import MessageToDict
from sqlalchemy import create_engine, make_url

from pdp.wire.convert.filters import message_of_plan
from tests.kit import soak
from tests.kit.clusters import started_cluster
from tests.kit.filters.oracle import CASES_PER_ROWS, allowed_of, kind_of
from tests.kit.filters.tables import Base, put
from tests.kit.filters.worlds import plan_of, random_case, random_rows


def main() -> None:
    seeds = soak.seeds(20_000 // CASES_PER_ROWS, sample=30)
    with started_cluster() as cluster:
        url = make_url(cluster.database())
        engine = create_engine(url.set(drivername="postgresql+psycopg"))
        Base.metadata.create_all(engine)
        _say(url.set(drivername="postgresql").render_as_string(hide_password=False))
        found: Counter[str] = Counter()
        for seed in seeds:
            random = Random(seed)
            rows, above = random_rows(random)
            with engine.begin() as connection:
                put(connection, rows, above)
            cases = [random_case(random, rows, above) for _ in range(CASES_PER_ROWS)]
            plans = [plan_of(case) for case in cases]
            messages = [
                MessageToDict(message_of_plan(plan, case.permission, "lesson"))
                for plan, case in zip(plans, cases, strict=True)
            ]
            _say(json.dumps(messages))
            expected = [allowed_of(case) for case in cases]  # while the other process asks
            answers = json.loads(sys.stdin.readline())
            for plan, allowed, answer in zip(plans, expected, answers, strict=True):
                found["superset" if plan.unsupported else "exact"] += 1
                if isinstance(answer, str):
                    found["refused"] += 1
                    continue
                found[kind_of(allowed, rows)] += 1
                fits = allowed <= set(answer) if plan.unsupported else allowed == set(answer)
                if not fits or len(answer) != len(set(answer)):
                    sys.exit(f"seed {seed}: {answer}, not {sorted(allowed)}")
        engine.dispose()
    answered = {**found, "exact": found["exact"] - found["refused"]}
    worlds = len(seeds) * CASES_PER_ROWS
    assert found["refused"] < worlds * 0.5, found
    assert found["some"] > worlds * 0.15, found
    _say(json.dumps({"worlds": worlds, **answered}))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
