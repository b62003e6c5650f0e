"""Holds the adapter for Prisma against decisions: rows and plans for a Node process.

    python -m tests.kit.filters.prisma_oracle WORLDS

The first line of standard output is the URL of a database. Then, for each plan, a line with its
JSON form goes out, and a line comes in: the ids of the rows that it takes, or the reason why it
cannot be expressed. The last line counts the worlds by kind. Exits with 1 at the first difference.
"""

import json
import sys
from collections import Counter
from random import Random

from google.protobuf.json_format import MessageToJson
from sqlalchemy import create_engine, make_url

from pdp.model import Effect
from pdp.wire.convert.filters import message_of_plan
from tests.kit.clusters import started_cluster
from tests.kit.filters.oracle import CASES_PER_ROWS
from tests.kit.filters.tables import Base, put
from tests.kit.filters.worlds import decisions_of, plan_of, random_case, random_rows


def main(worlds: int) -> None:
    with started_cluster() as cluster:
        url = make_url(cluster.database())
        engine = create_engine(url.set(drivername="postgresql+psycopg"))
        Base.metadata.create_all(engine)
        _say(url.set(drivername="postgresql").render_as_string(hide_password=False))
        found: Counter[str] = Counter()
        for seed in range(worlds // CASES_PER_ROWS):
            random = Random(seed)
            rows, above = random_rows(random)
            with engine.begin() as connection:
                put(connection, rows, above)
            for _ in range(CASES_PER_ROWS):
                case = random_case(random, rows, above)
                plan = plan_of(case)
                message = message_of_plan(plan, case.permission, "lesson")
                _say(json.dumps(json.loads(MessageToJson(message))))
                answer = json.loads(sys.stdin.readline())
                allowed = {
                    row.id
                    for row, decision in zip(rows, decisions_of(case), strict=True)
                    if decision.effect is Effect.ALLOW
                }
                found["superset" if plan.unsupported else "exact"] += 1
                kind = "some" if 0 < len(allowed) < len(rows) else "all" if allowed else "none"
                if isinstance(answer, str):
                    found["refused"] += 1
                    continue
                found[kind] += 1
                fits = allowed <= set(answer) if plan.unsupported else allowed == set(answer)
                if not fits or len(answer) != len(set(answer)):
                    sys.exit(f"seed {seed}: {answer}, not {sorted(allowed)}")
        engine.dispose()
    answered = {**found, "exact": found["exact"] - found["refused"]}
    assert found["refused"] < worlds * 0.5, found
    assert found["some"] > worlds * 0.15, found
    _say(json.dumps(answered))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
