"""Positive control of the oracle: it finds every wrong compiler of `mutants.py`."""

from collections import Counter

import pytest
from sqlalchemy import Connection

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
