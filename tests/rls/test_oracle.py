"""PostgreSQL shows and takes what Check allows: four commands, connected as a plain role."""

from collections import Counter

import pytest
from sqlalchemy import Connection

from tests.kit import soak
from tests.kit.rls import documents
from tests.kit.rls.oracle import FACTS_PER_POLICY, assert_not_degenerate, differences

WORLDS = soak.count(20_000, sample=60)
pytestmark = pytest.mark.soak


def test_a_role_that_owns_nothing_has_the_rows_that_check_allows(connection: Connection) -> None:
    found: Counter[str] = Counter()
    assert not list(differences(range(WORLDS // FACTS_PER_POLICY), connection, found))
    assert_not_degenerate(found)


def test_columns_of_any_kind_of_value_have_the_rows_that_check_allows(
    connection: Connection,
) -> None:
    found: Counter[str] = Counter()
    seeds = range(WORLDS // 4 // FACTS_PER_POLICY)
    assert not list(documents.differences(seeds, connection, found))
    assert found["some"] > sum(found[kind] for kind in ("some", "all", "none")) * 0.05, found
