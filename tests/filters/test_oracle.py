"""Every filter takes exactly what a decision allows: in memory, on SQLite and on PostgreSQL."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Connection

from tests.kit import soak
from tests.kit.databases import new_database
from tests.kit.filters.oracle import (
    CASES_PER_ROWS,
    SEEDS,
    assert_not_degenerate,
    differences,
    wild_differences,
)

pytestmark = pytest.mark.soak


def test_a_query_takes_what_a_decision_allows(connections: list[Connection]) -> None:
    found: Counter[str] = Counter()
    assert not list(differences(SEEDS, connections, found))
    assert_not_degenerate(found)


def test_a_filter_over_values_of_any_type_takes_what_a_decision_allows() -> None:
    found: Counter[str] = Counter()
    seeds = soak.seeds(20_000, sample=100)
    assert not list(wild_differences(seeds, found))
    assert found["some"] > len(seeds) * 0.05


def test_a_queryset_takes_what_a_decision_allows(tmp_path: Path, postgresql_server: str) -> None:
    with new_database(postgresql_server) as url:
        done = subprocess.run(
            [sys.executable, "-m", "tests.kit.filters.django_oracle", str(tmp_path), url],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == f"{len(SEEDS) * CASES_PER_ROWS} worlds\n"
