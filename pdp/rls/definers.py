"""Finds functions through which a role reads protected tables as another role: SECURITY DEFINER."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from pdp.rls.sql import SCHEMA


class Definer(NamedTuple):
    """A function that reads a table as its owner, who has more rows than the role that calls it."""

    signature: str
    """Qualified and quoted, with the types of its parameters."""
    table: str
    owner: str
    callers: Sequence[str]
    """The roles that may call it, also by SET ROLE, and through views, defaults of columns and
    triggers."""
    passes: bool
    """Whether its owner passes row-level security now; else it owns the table, and may switch
    row-level security off."""


_FUNCTIONS: Final = text("""
    SELECT p.oid::regprocedure::text AS signature, n.nspname AS schema, p.proname AS name,
        coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS body,
        p.prosecdef AS is_definer, o.oid AS owner_oid, o.rolname AS owner,
        o.rolsuper OR o.rolbypassrls
            OR coalesce(pg_has_role(o.oid, to_regrole(:pdp), 'USAGE'), false)
            AS passes,
        ARRAY(
            SELECT r.rolname::text FROM pg_roles r
            WHERE r.rolname = ANY (CAST(:roles AS text[])) AND r.oid <> o.oid
                AND EXISTS (SELECT FROM pg_roles s WHERE pg_has_role(r.oid, s.oid, 'MEMBER') AND (
                    has_function_privilege(s.oid, p.oid, 'EXECUTE')
                    AND (has_schema_privilege(s.oid, n.oid, 'USAGE') OR p.oid IN (
                        -- What holds it by its id needs no right on its schema.
                        SELECT d.refobjid FROM pg_depend d
                        WHERE d.refclassid = 'pg_proc'::regclass AND d.classid IN (
                            'pg_rewrite'::regclass, 'pg_attrdef'::regclass, 'pg_proc'::regclass
                        )
                    ))
                    -- A trigger needs none on its function.
                    OR EXISTS (
                        SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid AND (
                            has_table_privilege(s.oid, t.tgrelid, 'DELETE, TRUNCATE')
                            OR has_any_column_privilege(s.oid, t.tgrelid, 'INSERT, UPDATE')
                        )
                    )
                ))
            ORDER BY 1
        ) AS callers
    FROM pg_proc p
    JOIN pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_roles o ON o.oid = p.proowner
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', :pdp)
    ORDER BY 1
""")
_OWNS: Final = text(
    "SELECT pg_has_role(:owner, relowner, 'USAGE') FROM pg_class WHERE oid = CAST(:table AS oid)"
)


def definers(
    connection: Connection,
    roles: Sequence[str],
    tables: Mapping[str, int],
    views: Mapping[str, Sequence[tuple[str, str]]],
) -> Iterator[Definer]:
    """Finds them by the names that their bodies hold, also through other functions and views. It
    does not see names that dynamic SQL puts together.

    Args:
        connection: with the search path that `read_catalog` sets.
        roles: those that the application connects as.
        tables: the protected tables, as `schema.table`, with their oids.
        views: of each table, schema and name of the views that read it.
    """
    functions = connection.execute(_FUNCTIONS, {"pdp": SCHEMA, "roles": list(roles)}).all()
    for table, oid in sorted(tables.items()):
        schema, _, name = table.partition(".")
        readers = {(schema, name), *views[table]}
        pending = list(functions)
        while found := [one for one in pending if _names_any(one.body, readers)]:
            pending = [one for one in pending if one not in found]
            readers = {(one.schema, one.name) for one in found}
            for one in found:
                if not one.is_definer or not one.callers:
                    continue
                owns = {"owner": one.owner_oid, "table": oid}
                if one.passes or connection.execute(_OWNS, owns).scalar():
                    yield Definer(one.signature, table, one.owner, one.callers, one.passes)


def _names_any(body: str, names: set[tuple[str, str]]) -> bool:
    """Whether SQL names one of them, alone or with its schema."""
    return any(
        re.search(
            rf'(?<![\w."])("?{re.escape(schema)}"?\s*\.\s*)?"?{re.escape(name)}"?(?!\w)',
            body,
            re.IGNORECASE,
        )
        for schema, name in names
    )
