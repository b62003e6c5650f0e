"""Inserts or replaces rows, many with one statement; batches of those that are too many for one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import ARRAY, Connection, Executable, Table, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")
Rows = Sequence[Mapping[str, Any]]

BATCH_ROWS = 1_000


def batches(items: Iterable[T], size: int = BATCH_ROWS) -> Iterator[list[T]]:
    """Yields lists of at most `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Returns an insert of the connection's dialect, which may say what to do on a conflict."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def upsert(dialect: str, table: Table, rows: Rows) -> tuple[Executable, Any]:
    """Returns the statement and its parameters. Of two rows with one key the last one wins."""
    key = [column.name for column in table.primary_key.columns]
    # PostgreSQL refuses a statement that changes one row twice.
    rows = list({tuple(row[name] for name in key): row for row in rows}.values())
    inserting, parameters = insert_rows(dialect, table, rows)
    rest = {
        column.name: inserting.excluded[column.name]
        for column in table.columns
        if not column.primary_key
    }
    return inserting.on_conflict_do_update(index_elements=key, set_=rest), parameters


def insert_rows(
    dialect: str, table: Table, rows: Rows
) -> tuple[postgresql.Insert | sqlite.Insert, Any]:
    """Returns the statement that inserts rows, and its parameters."""
    if dialect != "postgresql":
        return sqlite.insert(table), rows
    # One array for each column: ten times as fast as one statement for each row.
    names = list(table.columns.keys())
    arrays = (func.unnest(bindparam(c.name, type_=ARRAY(c.type))) for c in table.columns)
    inserting = postgresql.insert(table).from_select(names, select(*arrays))
    return inserting, {name: [row[name] for row in rows] for name in names}
