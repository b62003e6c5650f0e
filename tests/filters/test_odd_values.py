"""A row with a value that no question holds, and a constant that no row holds, decide as `Check`
does. No query fails."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from pdp_client.attributes import to_struct
from pdp_client.sqlalchemy import resource_of, where
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from tests.kit.filters.odd_values import BEYOND, PLANS, Priced, allowed, fill


@pytest.fixture(scope="module")
def filled(connections: list[Connection]) -> list[Connection]:
    """SQLite and PostgreSQL."""
    for connection in connections:
        connection.commit()  # the tables of the other tests, which stay when this one rolls back
        fill(connection)
    return connections


def test_a_query_takes_what_check_allows(filled: list[Connection]) -> None:
    for connection in filled:
        for plan in PLANS:
            query = select(Priced.id).where(where(plan, Priced)).order_by(Priced.id)
            found = connection.scalars(query).all()
            assert found == allowed(plan), (connection.dialect.name, plan.filter)


def test_no_plan_is_about_nothing_or_everything_alone() -> None:
    taken = [len(allowed(plan)) for plan in PLANS]
    assert sum(0 < one < 12 for one in taken) > len(taken) / 2


@pytest.mark.parametrize("price", BEYOND)
def test_check_is_not_asked_about_a_number_beyond_every_double(price: str) -> None:
    attributes = resource_of(Priced(id=1, price=Decimal(price), code="a")).attributes
    assert attributes is not None
    with pytest.raises(ValueError, match="must be finite"):
        to_struct(attributes, "attributes")


def test_a_cast_would_fail_the_whole_query(filled: list[Connection]) -> None:
    """Positive control."""
    postgresql = filled[1]
    with pytest.raises(DBAPIError, match="out of range"):
        postgresql.execute(text("SELECT id FROM priced WHERE price::double precision > 5"))
    postgresql.rollback()
    with pytest.raises(DBAPIError, match="out of range"):
        postgresql.execute(text("SELECT id FROM priced WHERE id = 9999999999::integer"))
    postgresql.rollback()


def test_a_queryset_takes_what_check_allows(filled: list[Connection], tmp_path: Path) -> None:
    """A column of times is refused. In a process of its own, because Django's settings are made
    once in each."""
    url = filled[1].engine.url.render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-m", "tests.kit.filters.django_odd_values", str(tmp_path), url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(done.stdout)
    assert said["refused"] == "the column Priced.made of type DateTimeField"
    for found in said["taken"].values():
        for plan, taken in zip(PLANS, found, strict=True):
            assert taken == allowed(plan), plan.filter
