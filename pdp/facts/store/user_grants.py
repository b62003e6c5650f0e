"""Reads the grants of many users at once."""

from collections.abc import Collection

from sqlalchemy import func, select

from pdp.database.bulk import BATCH_ROWS
from pdp.facts.store import tables
from pdp.facts.store.reader import Reader
from pdp.facts.store.rows import grant_from_row
from pdp.model import Grant


def count_users(reader: Reader) -> int:
    """Returns the number of stored users. Raises DatabaseUnavailable."""
    counted: int = reader.connection.execute(
        select(func.count()).select_from(tables.users)
    ).scalar_one()
    return counted


def read_grants_to(reader: Reader, user_ids: Collection[str]) -> dict[str, list[Grant]]:
    """Returns the grants of at most BATCH_ROWS users, by user id, without users that have none.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    if len(user_ids) > BATCH_ROWS:
        raise ValueError(f"more than {BATCH_ROWS} users at once")
    grants = tables.grants
    query = select(grants).where(grants.c.user_id.in_(user_ids))
    found: dict[str, list[Grant]] = {}
    for row in reader.connection.execute(query).mappings():
        found.setdefault(row["user_id"], []).append(grant_from_row(row))
    return found
