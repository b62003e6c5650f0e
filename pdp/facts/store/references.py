"""Finds the entities that refer to another: a deletion is refused, or deletes them too.

Every function raises `DatabaseUnavailable` if the database does not answer.
"""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import func, select

from pdp.facts.store import tables
from pdp.facts.store.reader import Reader
from pdp.facts.store.rows import KINDS, grant_from_row
from pdp.model import Grant, Membership, Resource, Route, Rule

R = TypeVar("R", Rule, Grant, Route, Membership, Resource)


def find_referrers(
    reader: Reader, kind: type[R], limit: int | None = None, **columns: str
) -> Sequence[R]:
    """Returns the entities of a kind whose columns have exactly these values, ordered by key."""
    stored = KINDS[kind]
    where = (stored.table.c[name] == value for name, value in columns.items())
    query = select(stored.table).where(*where).order_by(*stored.key).limit(limit)
    return [stored.from_row(row) for row in reader.connection.execute(query).mappings()]


def grants_on_resources(reader: Reader) -> tuple[Grant, ...]:
    """Returns one grant for each role that is granted on single resources: the smallest id."""
    grants = tables.grants
    first = select(func.min(grants.c.id)).where(grants.c.resource_type.is_not(None))
    query = select(grants).where(grants.c.id.in_(first.group_by(grants.c.role)))
    rows = reader.connection.execute(query.order_by(grants.c.id)).mappings()
    return tuple(grant_from_row(row) for row in rows)


def find_inheritor(reader: Reader, role: str) -> str | None:
    """Returns the first role that inherits from `role`; None: none."""
    edges = tables.role_inheritance
    query = select(edges.c.role).where(edges.c.inherits == role).order_by(edges.c.role).limit(1)
    found: str | None = reader.connection.execute(query).scalar_one_or_none()
    return found
