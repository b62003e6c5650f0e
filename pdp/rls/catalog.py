"""What PostgreSQL's catalog says of the tables of a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

from pdp.rls.config import Config, Relation

PDP_TABLES: Final = ("users", "memberships", "grants", "revoked_sessions", "clerk_objects")
"""What functions of the migration read."""


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column."""

    type: str
    """As PostgreSQL writes it: `character varying(20)`."""
    base: str
    """The name of the type alone: `varchar`."""
    is_bytewise: bool
    """Whether equality is that of the bytes: not of a nondeterministic collation."""


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table."""

    oid: int
    columns: Mapping[str, ColumnInfo]
    indexed: frozenset[str]
    """Columns with which an index begins."""


Catalog = Mapping[str, TableInfo]
"""By `schema.table`."""


def read_catalog(connection: Connection, config: Config) -> Catalog:
    """Reads all tables that a configuration names. Sets the search path of the transaction.

    Raises:
        ValueError: they are not plain tables of this database, or the decision point's are not.
    """
    if connection.dialect.name != "postgresql":
        raise ValueError(
            "row-level security needs PostgreSQL: database_url names a database of"
            f" {connection.dialect.name}"
        )
    # How types are written depends on it.
    connection.execute(text("SET LOCAL search_path = pg_catalog, pg_temp"))
    for name in PDP_TABLES:
        if _read_table(connection, config.pdp_schema, name) is None:
            raise ValueError(
                f"the decision point's table {name} is not in the schema {config.pdp_schema}: set"
                " pdp_schema"
            )
    found = {}
    for name in _names(config):
        schema, _, table = name.partition(".")
        info = _read_table(connection, schema, table)
        if info is None:
            raise ValueError(
                f"there is no table {name} in the decision point's database: row-level security"
                " needs the application's tables and the decision point's in one database"
            )
        found[name] = info
    return found


def _names(config: Config) -> set[str]:
    names = set(config.tables)
    pending: list[Any] = [
        attribute for table in config.tables.values() for attribute in _attributes(table)
    ]
    for table in config.tables.values():
        if table.parent is not None and table.parent.table is not None:
            names.add(table.parent.table)
    while pending:
        attribute = pending.pop()
        if isinstance(attribute, Relation):
            names.add(attribute.table)
            for fields in (attribute.one, attribute.many):
                pending += (fields or {}).values()
    return names


def _attributes(table: Any) -> list[Any]:
    return list(table.attributes.values())


_TABLE: Final = text("""
    SELECT c.oid, c.relkind::text AS kind, c.relispartition AS is_partition,
        EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
            AS inherits
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = :table AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
""")
_COLUMNS: Final = text("""
    SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
        t.typname AS base, t.typtype::text AS typtype,
        coalesce(l.collisdeterministic, true) AS is_bytewise
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
    WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped
""")
_INDEXED: Final = text("""
    SELECT a.attname FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = :oid AND i.indisvalid AND i.indpred IS NULL
""")


def _read_table(connection: Connection, schema: str, table: str) -> TableInfo | None:
    row = connection.execute(_TABLE, {"schema": schema, "table": table}).one_or_none()
    if row is None:
        return None
    if row.kind != "r" or row.inherits:
        raise ValueError(
            f"{schema}.{table} is not a plain table: views, partitions, and tables that inherit are"
            " not supported"
        )
    columns = {
        column.name: ColumnInfo(
            column.type,
            column.base if column.typtype == "b" else f"{column.base} (not a base type)",
            column.is_bytewise,
        )
        for column in connection.execute(_COLUMNS, {"oid": row.oid})
    }
    indexed = connection.execute(_INDEXED, {"oid": row.oid}).scalars()
    return TableInfo(row.oid, columns, frozenset(indexed))
