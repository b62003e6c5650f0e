"""Checks that a database still enforces the policy through row-level security."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from pdp.rls.catalog import PDP_TABLES, Catalog
from pdp.rls.config import Config
from pdp.rls.definers import Definer, definers
from pdp.rls.migration import APPLIED, VERSION, Migration, qualified
from pdp.rls.sql import SCHEMA, SETTING, identifier

_AGAIN: Final = "run `pdp rls generate` and apply the migration"
_COMMENT: Final = re.compile(r"pdp rls ([0-9]+) sha256:([0-9a-f]{64}) applied:([0-9a-f]{32})")


class Problem(NamedTuple):
    """Why rows may be seen or written that Check would refuse, or the other way round."""

    subject: str
    """A table, a role, a view or a function."""
    message: str
    advice: str


def problems(
    connection: Connection, config: Config, catalog: Catalog, expected: Migration
) -> Iterator[Problem]:
    """Finds what is wrong. The migration is what would be generated now.

    Needs no rights on the application's tables, and the search path that `read_catalog` sets.
    """
    yield from _drift(connection, expected)
    yield from _defaults(connection)
    owned = {name: catalog[name].oid for name in sorted(config.protected())}
    views = {name: connection.execute(_VIEWS, {"oid": oid}).all() for name, oid in owned.items()}
    for name, oid in owned.items():
        yield from _table(connection, config, name, oid, expected)
        yield from _views(name, views[name])
        yield from _rules(connection, name, oid)
    readers = {name: [(view.schema, view.short) for view in some] for name, some in views.items()}
    for found in definers(connection, config.roles, owned, readers):
        yield _definer(found)
    for role in config.roles:
        yield from _role(connection, config, role, owned)


def _drift(connection: Connection, expected: Migration) -> Iterator[Problem]:
    comment = connection.execute(
        text("SELECT obj_description(to_regnamespace(:schema), 'pg_namespace')"),
        {"schema": SCHEMA},
    ).scalar()
    found = _COMMENT.fullmatch(comment or "")
    if found is None:
        yield Problem(SCHEMA, "no migration of this program was applied", _AGAIN)
        return
    if (found[1], found[2]) != (str(VERSION), expected.digest):
        yield Problem(
            SCHEMA,
            "the rules, the columns or the configuration have changed since the migration was"
            " applied",
            _AGAIN,
        )
    if connection.execute(text(APPLIED)).scalar() != found[3]:
        yield Problem(SCHEMA, "a policy or a function was changed after it was applied", _AGAIN)


_DEFAULTS: Final = text("""
    SELECT coalesce(r.rolname, 'all roles') AS role FROM pg_db_role_setting s
    LEFT JOIN pg_roles r ON r.oid = s.setrole
    CROSS JOIN unnest(s.setconfig) AS one(setting)
    WHERE setting LIKE :prefix AND (
        s.setdatabase = 0
        OR s.setdatabase = (SELECT d.oid FROM pg_database d WHERE datname = current_database())
    )
    ORDER BY 1
""")


def _defaults(connection: Connection) -> Iterator[Problem]:
    for role in connection.execute(_DEFAULTS, {"prefix": f"{SETTING}=%"}).scalars():
        yield Problem(
            role,
            f"has an actor by default, so that a session that sets none is not nobody: {SETTING}",
            f"ALTER ROLE or ALTER DATABASE ... RESET {SETTING}",
        )


_TABLE: Final = text("""
    SELECT c.relrowsecurity AS is_enabled, c.relforcerowsecurity AS is_forced,
        ARRAY(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid) AS policies,
        ARRAY(
            SELECT p.polname::text FROM pg_policy p
            WHERE p.polrelid = c.oid AND p.polpermissive AND p.polname NOT LIKE 'pdp\\_%'
        ) AS others
    FROM pg_class c WHERE c.oid = :oid
""")


def _table(
    connection: Connection, config: Config, name: str, oid: int, expected: Migration
) -> Iterator[Problem]:
    row = connection.execute(_TABLE, {"oid": oid}).one()
    if not row.is_enabled:
        yield Problem(name, "row-level security is not enabled: every row is seen", _AGAIN)
    if not row.is_forced:
        yield Problem(name, "row-level security is not forced: the owner passes it", _AGAIN)
    for missing in sorted({policy.name for policy in expected.policies[name]} - set(row.policies)):
        yield Problem(name, f"the policy {missing} is missing", _AGAIN)
    for other in sorted(row.others):
        yield Problem(
            name, f"the policy {other} allows rows, too", "drop it, or make it restrictive"
        )
    for role in config.roles:
        for privilege in ("TRUNCATE", "TRIGGER", "REFERENCES"):
            holder = _holder(connection, role, oid, privilege)
            if holder is not None:
                yield Problem(
                    name,
                    f"{role} {_has(role, holder)} {privilege}, which passes row-level security",
                    f"REVOKE {privilege} ON {qualified(name)} FROM {identifier(holder)}",
                )


_HOLDER: Final = text("""
    SELECT s.rolname::text FROM pg_roles s
    WHERE pg_has_role(to_regrole(:role), s.oid, 'MEMBER') AND CASE
        WHEN :one IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
        THEN has_any_column_privilege(s.oid, CAST(:oid AS oid), :one)
        ELSE has_table_privilege(s.oid, CAST(:oid AS oid), :one)
    END
    ORDER BY s.oid <> to_regrole(:role), 1 LIMIT 1
""")


def _holder(connection: Connection, role: str, oid: int, privilege: str) -> str | None:
    """The role, or one that it may take by SET ROLE, that has a privilege on a table or on a column
    of it. No role has none."""
    values = {"role": identifier(role), "oid": oid, "one": privilege}
    holder: str | None = connection.execute(_HOLDER, values).scalar()
    return holder


def _has(role: str, holder: str) -> str:
    return "has the privilege" if holder == role else f"has, by SET ROLE {holder}, the privilege"


_VIEWS: Final = text("""
    WITH RECURSIVE readers(oid) AS (
        SELECT CAST(:oid AS oid)
        UNION
        SELECT v.oid FROM readers
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = readers.oid
        JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
        JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
    )
    SELECT v.oid::regclass::text AS name, n.nspname AS schema, v.relname AS short,
        v.relkind = 'm' AS is_copy,
        EXISTS (
            SELECT FROM pg_options_to_table(v.reloptions) o
            WHERE o.option_name = 'security_invoker' AND o.option_value::boolean
        ) AS is_invoker
    FROM readers
    JOIN pg_class v ON v.oid = readers.oid
    JOIN pg_namespace n ON n.oid = v.relnamespace
    WHERE v.relkind IN ('v', 'm')
    ORDER BY 1
""")
"""Views that read a table, also through other views."""


def _views(name: str, views: Iterable[Any]) -> Iterator[Problem]:
    for view in views:
        if view.is_copy:
            yield Problem(
                view.name, f"is a materialized view: a copy of {name} without policies", "drop it"
            )
        elif not view.is_invoker:
            yield Problem(
                view.name,
                f"reads {name} as its own owner, not as the role that asks",
                f"ALTER VIEW {view.name} SET (security_invoker = true)",
            )


_RULES: Final = text("""
    SELECT DISTINCT format('%s ON %s', quote_ident(r.rulename), r.ev_class::regclass) AS rule,
        r.ev_class::regclass::text AS on
    FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
        AND d.refobjid = CAST(:oid AS oid) AND d.deptype = 'n' AND r.ev_type <> '1'
        AND pg_get_ruledef(r.oid) NOT LIKE '% DO INSTEAD NOTHING;'
    ORDER BY 1
""")
"""Rules other than the queries of views that read or write a table."""


def _rules(connection: Connection, name: str, oid: int) -> Iterator[Problem]:
    for rule in connection.execute(_RULES, {"oid": oid}):
        yield Problem(
            f"the rule {rule.rule}",
            f"reads or writes {name} as the owner of {rule.on}, not as the role that asks",
            f"DROP RULE {rule.rule}",
        )


def _definer(found: Definer) -> Problem:
    callers = ", ".join(found.callers)
    why = "passes row-level security" if found.passes else "may switch row-level security off"
    return Problem(
        found.signature,
        f"may be called by {callers}, and names {found.table} as SECURITY DEFINER: its owner"
        f" {found.owner} {why}",
        f"ALTER ROUTINE {found.signature} SECURITY INVOKER, or REVOKE EXECUTE from PUBLIC and"
        f" {callers}",
    )


_ROLE: Final = text("""
    SELECT r.rolsuper OR EXISTS (
            SELECT FROM pg_roles s WHERE s.rolsuper AND pg_has_role(r.oid, s.oid, 'MEMBER')
        ) AS is_superuser,
        r.rolbypassrls OR EXISTS (
            SELECT FROM pg_roles s WHERE s.rolbypassrls AND pg_has_role(r.oid, s.oid, 'MEMBER')
        ) AS bypasses,
        r.rolreplication OR EXISTS (
            SELECT FROM pg_roles s WHERE s.rolreplication AND pg_has_role(r.oid, s.oid, 'MEMBER')
        ) AS replicates,
        ARRAY(
            SELECT s.rolname::text FROM pg_roles s
            WHERE s.rolname IN (
                'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'
            ) AND pg_has_role(r.oid, s.oid, 'MEMBER')
            ORDER BY 1
        ) AS of_files,
        ARRAY(
            SELECT n.nspname::text FROM pg_namespace n
            WHERE n.nspname = ANY (CAST(:schemas AS text[]))
                AND pg_has_role(r.oid, n.nspowner, 'MEMBER')
            ORDER BY 1
        ) AS schemas,
        coalesce(pg_has_role(r.oid, to_regrole(:schema), 'MEMBER'), false) AS reads_all
    FROM pg_roles r WHERE r.rolname = :role
""")


def _role(
    connection: Connection, config: Config, role: str, owned: Mapping[str, int]
) -> Iterator[Problem]:
    schemas = [SCHEMA, config.pdp_schema, *(name.partition(".")[0] for name in owned)]
    values = {"role": role, "schema": SCHEMA, "schemas": schemas}
    row = connection.execute(_ROLE, values).one_or_none()
    if row is None:
        yield Problem(role, "there is no such role", "create it, or correct the configuration")
        return
    if row.is_superuser:
        yield Problem(role, "is a superuser, who passes row-level security", "connect as another")
        return
    if row.bypasses:
        yield Problem(role, "has BYPASSRLS", f"ALTER ROLE {identifier(role)} NOBYPASSRLS")
    if row.replicates:
        yield Problem(
            role,
            "has REPLICATION, which copies all rows",
            f"ALTER ROLE {identifier(role)} NOREPLICATION",
        )
    for group in row.of_files:
        yield Problem(
            role, f"is a member of {group}, which reaches files of the server", "revoke it"
        )
    for schema in row.schemas:
        yield Problem(
            role,
            f"owns the schema {schema}, or is a member of its owner: it may replace what is in it",
            "let the application connect as a role that owns nothing",
        )
    if row.reads_all:
        yield Problem(role, f"is a member of {SCHEMA}, which reads all rows", "revoke it")
    for name, oid in owned.items():
        if connection.execute(
            text("SELECT pg_has_role(:role, relowner, 'MEMBER') FROM pg_class WHERE oid = :oid"),
            {"role": role, "oid": oid},
        ).scalar():
            yield Problem(
                role,
                f"owns {name}, or is a member of its owner: it may switch row-level security off",
                "let the application connect as a role that owns nothing",
            )
    for table in PDP_TABLES:
        full = f"{identifier(config.pdp_schema)}.{identifier(table)}"
        stored = connection.execute(text("SELECT CAST(:table AS regclass)::oid"), {"table": full})
        oid = stored.scalar_one()
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER"):
            holder = _holder(connection, role, oid, privilege)
            if holder is not None:
                may = "may read the facts of all" if privilege == "SELECT" else "may take any role"
                yield Problem(
                    role,
                    f"{_has(role, holder)} {privilege} on the decision point's table {table}, and"
                    f" so {may}",
                    f"REVOKE {privilege} ON {full} FROM PUBLIC, {identifier(holder)}",
                )
