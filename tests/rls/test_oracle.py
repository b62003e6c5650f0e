"""PostgreSQL shows and takes what Check allows: four commands, connected as a plain role."""

from collections import Counter

import pytest
from sqlalchemy import Engine

from tests.kit import soak
from tests.kit.rls import documents
from tests.kit.rls.oracle import (
    FACTS_PER_POLICY,
    assert_not_degenerate,
    differences,
    differences_in,
)

pytestmark = pytest.mark.soak


def test_a_role_that_owns_nothing_has_the_rows_that_check_allows(engine: Engine) -> None:
    found: Counter[str] = Counter()
    seeds = soak.seeds(20_000 // FACTS_PER_POLICY, sample=6)
    assert not list(differences_in(engine, differences, seeds, found))
    assert_not_degenerate(found)


def test_columns_of_any_kind_of_value_have_the_rows_that_check_allows(engine: Engine) -> None:
    found: Counter[str] = Counter()
    seeds = soak.seeds(5_000 // FACTS_PER_POLICY, sample=6)
    assert not list(differences_in(engine, documents.differences, seeds, found))
    assert found["some"] > sum(found[kind] for kind in ("some", "all", "none")) * 0.05, found
