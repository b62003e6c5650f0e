"""Positive control of the oracle: it finds every wrong compiler of `mutants.py`."""

from collections import Counter

import pytest
from sqlalchemy import Connection

from tests.kit.filters.mutants import MUTANTS
from tests.kit.filters.oracle import differences

ROUNDS_MAX = 60
"""Of ten worlds each."""


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_oracle_finds(
    mutant: str, connections: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate, found_at = MUTANTS[mutant]
    mutate(monkeypatch)
    # LIKE is only on PostgreSQL.
    needed = connections[1:] if mutant == "like_is_not_escaped" else connections[:1]
    for connection in needed:
        connection.engine.clear_compiled_cache()
    try:
        found = next(differences([found_at, *range(ROUNDS_MAX)], needed, Counter()), None)
    finally:
        for connection in needed:
            connection.engine.clear_compiled_cache()
    assert found is not None
