"""A filter takes exactly the resources for which a decision allows."""

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from pdp_filters import evaluate

from pdp.model import Effect
from tests.filters.worlds import (
    decisions_of,
    plan_of,
    random_case,
    random_rows,
    received,
    row_of,
    wild_attributes,
)

seeds = st.integers(0, 2**63)
worlds_1_000 = settings(max_examples=1_000, deadline=None, derandomize=True, database=None)


def drawn(seed):
    random = Random(seed)
    rows, above = random_rows(random)
    if random.random() < 0.5:
        rows = [row._replace(attributes=wild_attributes(random)) for row in rows]
    return random_case(random, rows, above)


@given(seeds)
@worlds_1_000
def test_a_filter_takes_what_a_decision_allows(seed):
    case = drawn(seed)
    plan = plan_of(case)
    assert received(plan, case).filter == plan.filter
    allowed = [one.effect is Effect.ALLOW for one in decisions_of(case)]
    taken = [evaluate(plan.filter, row_of(case, row)) for row in case.rows]
    if plan.unsupported:
        assert all(took for took, may in zip(taken, allowed, strict=True) if may)
    else:
        assert taken == allowed


def test_the_drawn_worlds_are_neither_all_nothing_nor_all_everything():
    """Positive control: most filters depend on the row, and few cannot be expressed."""
    found = Counter()
    for seed in range(300):
        case = drawn(seed)
        plan = plan_of(case)
        allowed = sum(one.effect is Effect.ALLOW for one in decisions_of(case))
        found["unsupported" if plan.unsupported else "exact"] += 1
        found["mixed" if 0 < allowed < len(case.rows) else "all" if allowed else "none"] += 1
    assert found["exact"] > 50
    assert found["mixed"] > 75
    assert min(found["all"], found["none"]) > 5
