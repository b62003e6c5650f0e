"""Filters on SQLite and PostgreSQL take what a decision allows."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

import pytest
from pdp_client.sqlalchemy import where
from sqlalchemy import Connection, create_engine, make_url, select

from pdp.model import Effect
from tests.filters.tables import Base, Lesson, put
from tests.filters.worlds import decisions_of, plan_of, random_case, random_rows, received
from tests.kit.clusters import started_cluster

WORLDS = int(os.environ.get("FILTER_WORLDS", "100"))
CASES_PER_ROWS = 10


@pytest.fixture(scope="module")
def connections() -> Iterator[list[Connection]]:
    with ExitStack() as stack:
        cluster = stack.enter_context(started_cluster())
        url = make_url(cluster.database()).set(drivername="postgresql+psycopg")
        engines = [create_engine("sqlite://"), create_engine(url)]
        for engine in engines:
            stack.callback(engine.dispose)
        opened = [stack.enter_context(engine.connect()) for engine in engines]
        for connection in opened:
            Base.metadata.create_all(connection)
        yield opened


def test_a_query_takes_what_a_decision_allows(connections):
    """And the worlds are neither all nothing nor all everything."""
    found = Counter()
    for seed in range(0, WORLDS, CASES_PER_ROWS):
        random = Random(seed)
        rows, above = random_rows(random)
        for connection in connections:
            put(connection, rows, above)
        for _ in range(CASES_PER_ROWS):
            case = random_case(random, rows, above)
            plan = received(plan_of(case), case)
            allowed = {
                row.id
                for row, decision in zip(rows, decisions_of(case), strict=True)
                if decision.effect is Effect.ALLOW
            }
            for connection in connections:
                taken = connection.scalars(select(Lesson.id).where(where(plan, Lesson))).all()
                assert len(taken) == len(set(taken))
                if plan.check_each_row:
                    assert allowed <= set(taken), f"seed {seed}"
                else:
                    assert allowed == set(taken), f"seed {seed}: {plan.filter}"
            found["superset" if plan.check_each_row else "exact"] += 1
            found["some" if 0 < len(allowed) < len(rows) else "all" if allowed else "none"] += 1
    total = found["exact"] + found["superset"]
    assert found["exact"] > total * 0.7
    assert found["some"] > total * 0.2
    assert found["all"] > 0
