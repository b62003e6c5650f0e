"""One SQL migration from a policy, a configuration and a catalog."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from pdp_client.plans import FilterUnsupported
from pdp_filters import FALSE, TRUE

from pdp.decision.policy import Policy
from pdp.rls.catalog import PDP_TABLES, Catalog, TableInfo
from pdp.rls.config import Config, Relation, Table
from pdp.rls.lowering import lower_rules
from pdp.rls.postgresql import PostgreSQL
from pdp.rls.rules import Compiled, compile_rules
from pdp.rls.sql import SCHEMA, Functions, Scope, identifier, literal

VERSION: Final = 1
COMMANDS: Final = {"read": "SELECT", "create": "INSERT", "update": "UPDATE", "delete": "DELETE"}
"""By what the configuration calls them."""

APPLIED: Final = f"""
    SELECT md5(string_agg(said, chr(10) ORDER BY said COLLATE "C")) FROM (
        SELECT format('%s %s %s %s %s %s %s', p.polrelid::regclass, p.polname, p.polcmd,
            p.polpermissive, p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid),
            pg_get_expr(p.polwithcheck, p.polrelid)) AS said
        FROM pg_policy p WHERE p.polname LIKE 'pdp\\_%'
        UNION ALL
        SELECT format('%s %s %s', f.oid::regprocedure, f.proowner::regrole,
            pg_get_functiondef(f.oid))
        FROM pg_proc f WHERE f.pronamespace = '{SCHEMA}'::regnamespace
    ) parts
"""
"""A digest of the policies and functions as the database has them."""


@dataclass(frozen=True, slots=True)
class PolicyText:
    """One policy of a table."""

    name: str
    command: str
    is_permissive: bool
    condition: str
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Migration:
    """A migration, and what there has to be once it was applied."""

    text: str
    digest: str
    """SHA-256 of what the text says of rules, functions and tables, in hexadecimal."""
    policies: dict[str, tuple[PolicyText, ...]]
    """By table."""


def make_migration(policy: Policy, config: Config, catalog: Catalog) -> Migration:
    """Compiles a policy for the tables of a configuration.

    Raises:
        FilterUnsupported: a rule reads what the database does not know, or cannot be written as
            SQL.
        pdp_client.FilterUnsupported: a column or relation has no exact comparison, or is not
            described.
        ValueError: a permission is not declared, or is of another type than the table.
    """
    made = Functions()
    target = PostgreSQL(config, catalog, made)
    policies = {
        name: tuple(_policies(policy, config, target, name, table))
        for name, table in sorted(config.protected().items())
    }
    texts = [row_policy.condition for some in policies.values() for row_policy in some]
    body = "\n\n".join(
        [
            _schema(config),
            _functions(config),
            *_reachable(made.made, texts),
            _closing(config),
            *(_table(config, name, some) for name, some in policies.items()),
            *_readers(config),
        ]
    )
    digest = hashlib.sha256(f"{VERSION}\n{body}".encode()).hexdigest()
    # Indexes are not part of the digest: once they were made, none is missing.
    parts = [_HEAD, body, *_indexes(config, catalog), _tail(digest)]
    return Migration("\n\n".join(parts) + "\n", digest, policies)


_ROLE: Final = f"""\
-- The role that reads grants, and rows that a rule looks up. It cannot log in.
DO $pdp$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{SCHEMA}') THEN
        CREATE ROLE {SCHEMA} NOLOGIN NOINHERIT;
    END IF;
    -- The role that applies this gives its functions away, which takes a membership.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT {SCHEMA} TO %I', current_user);
    END IF;
END $pdp$;"""
_HEAD: Final = f"""\
-- Row-level security by the policy of the decision point. Made by `pdp rls generate`: do not edit,
-- make it again. Apply it as the owner of the tables, with the right to create roles:
--   psql --set ON_ERROR_STOP=1 --file FILE DATABASE_URL
BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL standard_conforming_strings = on;
SET LOCAL lock_timeout = '5s';

{_ROLE}

-- What an earlier migration has made; the policies depend on its functions.
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;"""


def _schema(config: Config) -> str:
    schema = identifier(config.pdp_schema)
    tables = ", ".join(f"{schema}.{identifier(name)}" for name in PDP_TABLES)
    return f"""\
CREATE SCHEMA {SCHEMA} AUTHORIZATION {SCHEMA};
REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC;
GRANT USAGE ON SCHEMA {schema} TO {SCHEMA};
GRANT SELECT ON {tables} TO {SCHEMA};
SET LOCAL ROLE {SCHEMA};"""


def _functions(config: Config) -> str:
    text = files("pdp.rls").joinpath("functions.sql").read_text(encoding="utf-8")
    return text.strip().replace("@pdp@", identifier(config.pdp_schema))


def _closing(config: Config) -> str:
    roles = _roles(config)
    return f"""\
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {SCHEMA} FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {SCHEMA} TO {roles};
REVOKE EXECUTE ON FUNCTION {SCHEMA}.principal, {SCHEMA}.is_held_by FROM {roles};
-- Policies name functions of the schema; until the end the role that applies this may too.
GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC;
RESET ROLE;"""


def _tail(digest: str) -> str:
    return f"""\
REVOKE USAGE ON SCHEMA {SCHEMA} FROM PUBLIC;
DO $pdp$ BEGIN
    EXECUTE format(
        'COMMENT ON SCHEMA {SCHEMA} IS %L',
        'pdp rls {VERSION} sha256:{digest} applied:' || ({APPLIED.strip()})
    );
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('REVOKE {SCHEMA} FROM %I', current_user);
    END IF;
END $pdp$;
COMMIT;"""


def _roles(config: Config) -> str:
    return ", ".join(map(identifier, config.roles))


def qualified(name: str) -> str:
    """`schema.table`, quoted."""
    schema, _, table = name.partition(".")
    return f"{identifier(schema)}.{identifier(table)}"


def _policies(
    policy: Policy, config: Config, target: PostgreSQL, name: str, table: Table
) -> Iterator[PolicyText]:
    written: dict[str, tuple[Compiled, str, str]] = {}
    for word, command in COMMANDS.items():
        permission: str | None = getattr(table.permissions, word)
        if permission is None:
            continue
        if permission not in written:
            written[permission] = _written(policy, config, target, name, permission)
        found, allow, spared = written[permission]
        if found.allow != FALSE:
            yield PolicyText(f"pdp_{word}", command, True, allow, found.allowing)
        if found.spared != TRUE:
            yield PolicyText(f"pdp_{word}_deny", command, False, spared, found.denying)


def _written(
    policy: Policy, config: Config, target: PostgreSQL, name: str, permission: str
) -> tuple[Compiled, str, str]:
    """The rules for a permission, and where they allow and where none denies, as SQL."""
    table = config.tables[name]
    if permission.partition(":")[0] != table.type:
        raise ValueError(
            f"{name}: {permission} is not a permission on resources of type {table.type}"
        )
    found = compile_rules(policy, permission, table.type, is_alone=table.parent is None)
    scope = Scope(identifier(name.partition(".")[2]))
    try:
        allow, spared = (
            lower_rules(node, target, config, name, scope).text()
            for node in (found.allow, found.spared)
        )
    except FilterUnsupported as error:
        raise FilterUnsupported(f"{name}, {permission}: {error}") from None
    return found, allow, spared


def _table(config: Config, name: str, policies: tuple[PolicyText, ...]) -> str:
    table = qualified(name)
    lines = [
        f"-- {json.dumps(name)}",
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;",
        # Otherwise the owner of the table passes all policies.
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY;",
        # Row-level security does not apply to them.
        f"REVOKE TRUNCATE, REFERENCES, TRIGGER ON {table} FROM PUBLIC, {_roles(config)};",
    ]
    for word in COMMANDS:
        lines += [f"DROP POLICY IF EXISTS pdp_{word}{end} ON {table};" for end in ("", "_deny")]
    for row_policy in policies:
        kind = "PERMISSIVE" if row_policy.is_permissive else "RESTRICTIVE"
        condition = f"({row_policy.condition})"
        clauses = {
            "SELECT": f"USING {condition}",
            "DELETE": f"USING {condition}",
            "INSERT": f"WITH CHECK {condition}",
            "UPDATE": f"USING {condition}\n  WITH CHECK {condition}",
        }
        comment = literal(f"rules: {', '.join(row_policy.rules)}")
        lines += [
            f"CREATE POLICY {row_policy.name} ON {table} AS {kind} FOR {row_policy.command}",
            f"  TO {_roles(config)}\n  {clauses[row_policy.command]};",
            f"COMMENT ON POLICY {row_policy.name} ON {table} IS {comment};",
        ]
    return "\n".join(lines)


def _readers(config: Config) -> Iterator[str]:
    """The role of the functions may read what they look up, all of it."""
    for name in sorted(_looked_up(config)):
        schema = identifier(name.partition(".")[0])
        table = qualified(name)
        yield f"GRANT USAGE ON SCHEMA {schema} TO {SCHEMA};\nGRANT SELECT ON {table} TO {SCHEMA};"
        # Without row-level security on the table, the policy does nothing.
        yield (
            f"DROP POLICY IF EXISTS pdp_lookup ON {table};\n"
            f"CREATE POLICY pdp_lookup ON {table} FOR SELECT TO {SCHEMA} USING (true);"
        )


def _looked_up(config: Config) -> set[str]:
    found = set()
    for table in config.tables.values():
        if table.parent is not None and table.parent.table is not None:
            found.add(table.parent.table)
        found |= {relation.table for relation in _relations(table.attributes)}
    return found


def _relations(attributes: Mapping[str, object]) -> Iterator[Relation]:
    for attribute in attributes.values():
        if isinstance(attribute, Relation):
            yield attribute
            yield from _relations({**(attribute.one or {}), **(attribute.many or {})})


def _indexes(config: Config, catalog: Catalog) -> Iterator[str]:
    """For the organization, and for what relations look up, unless an index begins with it."""
    needed: dict[str, set[str]] = {}
    for name, table in config.tables.items():
        if table.organization is not None:
            needed.setdefault(name, set()).add(table.organization)
        for relation in _relations(table.attributes):
            needed.setdefault(relation.table, set()).update(relation.on)
        if table.parent is not None and table.parent.table is not None:
            above = table.parent.table
            needed.setdefault(above, set()).add(config.tables[above].id)
    for name, columns in sorted(needed.items()):
        info: TableInfo = catalog[name]
        for column in sorted(columns - info.indexed):
            index = hashlib.sha256(f"{name}.{column}".encode()).hexdigest()[:16]
            yield (
                f"CREATE INDEX IF NOT EXISTS pdp_rls_{index}"
                f" ON {qualified(name)} ({identifier(column)});"
            )


def _reachable(made: dict[str, str], texts: list[str]) -> list[str]:
    """The functions that the policies call, those that they call first."""
    found: dict[str, str] = {}

    def add(text: str) -> None:
        for name, definition in made.items():
            if name in text and name not in found:
                add(definition.partition("AS ")[2])
                found[name] = definition

    for text in texts:
        add(text)
    return list(found.values())
