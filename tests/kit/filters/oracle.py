"""Holds filters against decisions: in memory, on SQLite and on PostgreSQL."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from pdp_client.sqlalchemy import where
from pdp_filters import evaluate
from sqlalchemy import Connection, select

from pdp.model import Effect, Resource
from tests.kit import soak
from tests.kit.filters.tables import Lesson, put
from tests.kit.filters.worlds import (
    Case,
    decisions_of,
    plan_of,
    random_case,
    random_rows,
    received,
    row_of,
    wild_attributes,
)

CASES_PER_ROWS = 10
SEEDS = soak.seeds(20_000 // CASES_PER_ROWS, sample=3)
"""One set of rows each; for each adapter the same."""


@dataclass
class Difference:
    """Where a filter and the decisions disagree."""

    seed: int
    where: str
    allowed: set[str]
    taken: list[str]


def differences(
    seeds: Sequence[int], connections: Sequence[Connection], found: Counter[str]
) -> Iterator[Difference]:
    """All of some worlds, each with ten actors, on typed rows; counts what kind of worlds they
    are."""
    for seed in seeds:
        random = Random(seed)
        rows, above = random_rows(random)
        for connection in connections:
            put(connection, rows, above)
        for _ in range(CASES_PER_ROWS):
            case = random_case(random, rows, above)
            yield from _differences(seed, case, connections, found)


def wild_differences(seeds: Sequence[int], found: Counter[str]) -> Iterator[Difference]:
    """The same in memory alone, on rows whose attributes are of any type."""
    for seed in seeds:
        random = Random(seed)
        rows, above = random_rows(random)
        rows = [row._replace(attributes=wild_attributes(random)) for row in rows]
        yield from _differences(seed, random_case(random, rows, above), (), found)


def _differences(
    seed: int, case: Case, connections: Sequence[Connection], found: Counter[str]
) -> Iterator[Difference]:
    planned = plan_of(case)
    plan = received(planned, case)
    allowed = allowed_of(case)
    found["superset" if plan.check_each_row else "exact"] += 1
    found[kind_of(allowed, case.rows)] += 1
    answers = {"memory": [row.id for row in case.rows if _takes(case, plan.filter, row)]}
    # Once for all databases: to make it costs as much as to compile and execute it on one.
    query = select(Lesson.id).where(where(plan, Lesson)) if connections else None
    for connection in connections:
        answers[connection.dialect.name] = list(connection.scalars(query))
    for name, ids in answers.items():
        fits = allowed <= set(ids) if plan.check_each_row else allowed == set(ids)
        if not fits or len(ids) != len(set(ids)):
            yield Difference(seed, name, allowed, ids)


def _takes(case: Case, plan_filter, row: Resource) -> bool:
    return evaluate(plan_filter, row_of(case, row))


def kind_of(allowed: set[str], rows: Sequence[Resource]) -> str:
    """Whether all rows, some or none are allowed."""
    return "some" if 0 < len(allowed) < len(rows) else "all" if allowed else "none"


def allowed_of(case: Case) -> set[str]:
    """The ids of the rows that Check allows."""
    return {
        row.id
        for row, decision in zip(case.rows, decisions_of(case), strict=True)
        if decision.effect is Effect.ALLOW
    }


def assert_not_degenerate(found: Counter[str]) -> None:
    """Worlds in which every filter is nothing or everything would prove little."""
    total = found["exact"] + found["superset"]
    assert found["exact"] > total * 0.75
    assert found["some"] > total * 0.25
    assert found["all"] > total * 0.01
    assert found["none"] < total * 0.8
