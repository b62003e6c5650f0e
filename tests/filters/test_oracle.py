"""Every filter takes exactly what a decision allows: in memory, on SQLite and on PostgreSQL."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Connection

from tests.kit import soak
from tests.kit.clusters import started_cluster
from tests.kit.filters.oracle import (
    CASES_PER_ROWS,
    assert_not_degenerate,
    differences,
    wild_differences,
)

WORLDS = soak.count(20_000, sample=150)
pytestmark = pytest.mark.soak


def test_a_query_takes_what_a_decision_allows(connections: list[Connection]) -> None:
    found: Counter[str] = Counter()
    assert not list(differences(range(WORLDS // CASES_PER_ROWS), connections, found))
    assert_not_degenerate(found)


def test_a_filter_over_values_of_any_type_takes_what_a_decision_allows() -> None:
    found: Counter[str] = Counter()
    assert not list(wild_differences(range(WORLDS), found))
    assert found["some"] > WORLDS * 0.05


def test_a_queryset_takes_what_a_decision_allows(tmp_path: Path) -> None:
    with started_cluster() as cluster:
        arguments = [str(tmp_path), cluster.database(), str(WORLDS)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.kit.filters.django_oracle", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == f"{WORLDS} worlds\n"
