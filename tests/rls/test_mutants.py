"""Positive control of the oracle: it finds every wrong compiler of `mutants.py`."""

from collections import Counter

import pytest
from sqlalchemy import Connection

from tests.kit.rls import documents
from tests.kit.rls.mutants import MUTANTS
from tests.kit.rls.oracle import differences

ROUNDS_MAX = 60
"""Of several worlds each."""


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_oracle_finds(
    mutant: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate, found_at = MUTANTS[mutant]
    mutate(monkeypatch)
    seeds = [found_at, *range(ROUNDS_MAX)]
    assert next(differences(seeds, connection, Counter()), None) is not None


@pytest.mark.parametrize(
    "mutant", ["null_of_the_actor_is_absent", "null_is_under_a_not", "an_error_under_not_is_true"]
)
def test_the_oracle_of_columns_of_any_kind_finds(
    mutant: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate, _ = MUTANTS[mutant]
    mutate(monkeypatch)
    found = documents.differences(range(ROUNDS_MAX), connection, Counter())
    assert next(found, None) is not None
