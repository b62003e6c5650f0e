"""A PostgreSQL database that holds the decision point's tables and an application's, with the roles
of a deployment: `app_owner` owns the application's tables, `app` is what the application connects
as and owns nothing."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, delete, insert, make_url, text

from pdp.database.migrations import migrate
from pdp.decision.policy import Policy
from pdp.facts.store import tables
from pdp.facts.store.rows import to_row
from pdp.model import Actor
from pdp.rls.catalog import Catalog, read_catalog
from pdp.rls.config import Config, parse_config
from pdp.rls.migration import make_migration
from tests.kit.decision.reference import World
from tests.kit.filters.tables import Base

CONFIG = """
roles: [app]
tables:
  public.catalogs: {type: catalog, id: id, organization: organization_id, stored: true}
  public.courses:
    type: course
    id: id
    organization: organization_id
    parent: {table: public.catalogs, column: catalog_id}
    stored: true
    permissions: {}
  public.lessons:
    type: lesson
    id: id
    organization: organization_id
    parent: {table: public.courses, column: course_id}
    permissions:
      {read: lesson:view, create: lesson:edit, update: lesson:edit, delete: lesson:edit}
    attributes:
      owner: owner
      editor: editor
      title: {column: title, null_is: value}
      level: level
      seats: seats
      open: open
      unit:
        table: public.units
        on: {id: unit_id}
        one:
          name: name
          level: level
          tags: {table: public.unit_tags, on: {unit_id: id}, column: name}
      tags: {table: public.tags, on: {lesson_id: id}, column: name}
      members:
        table: public.members
        on: {lesson_id: id}
        many: {user: user, role: role, rank: rank}
"""
LESSONS = parse_config(CONFIG)

_ROLES = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'app') THEN
        CREATE ROLE app LOGIN;
        CREATE ROLE app_owner LOGIN;
    END IF;
END $$;
"""
_REFERENCES = """
SELECT conrelid::regclass::text, conname FROM pg_constraint
WHERE contype = 'f' AND confrelid = 'lessons'::regclass
"""


def open_database(url: str) -> Engine:
    """An engine of a superuser, after the tables of both were made."""
    migrate(url)
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text(_ROLES))
        Base.metadata.create_all(connection)
        # Rows that refer to lessons stay while lessons are deleted and inserted again.
        for table, constraint in connection.execute(text(_REFERENCES)).all():
            connection.execute(text(f'ALTER TABLE {table} DROP CONSTRAINT "{constraint}"'))
        for table in Base.metadata.sorted_tables:
            connection.execute(text(f"ALTER TABLE {table} OWNER TO app_owner"))
            connection.execute(text(f"GRANT ALL ON {table} TO app"))
        # Rules look them up, and the application sees nothing of them.
        for table in ("tags", "units"):
            connection.execute(text(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"))
            connection.execute(text(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"))
    return engine


def apply(connection: Connection, policy: Policy, config: Config, *, now: float | None) -> str:
    """Generates and applies the migration, as a superuser; returns it. `now`: what its clock
    says."""
    migration = make_migration(policy, config, read_catalog(connection, config))
    execute(connection, migration.text)
    if now is not None:
        connection.exec_driver_sql(_clock(now))
        connection.commit()
    return migration.text


def apply_within(
    connection: Connection, policy: Policy, config: Config, catalog: Catalog, *, now: float
) -> None:
    """The same within the transaction of the connection, which the caller rolls back."""
    migration = make_migration(policy, config, catalog)
    head, begin, rest = migration.text.partition("\nBEGIN;\n")
    body, commit, _ = rest.rpartition("\nCOMMIT;\n")
    assert (begin, commit) != ("", ""), head
    raw: Any = connection.connection.driver_connection
    raw.execute(f"{body};\n{_clock(now)};\nSET LOCAL search_path TO DEFAULT")


def _clock(now: float) -> str:
    return (
        "CREATE OR REPLACE FUNCTION pdp_rls.clock() RETURNS double precision LANGUAGE sql"
        f" STABLE RETURN {now}::double precision"
    )


def execute(connection: Connection, script: str) -> None:
    """Executes a script that begins and ends its transaction itself."""
    connection.rollback()
    raw: Any = connection.connection.driver_connection
    raw.autocommit = True
    try:
        raw.execute(script)
    except BaseException:
        raw.execute("ROLLBACK")
        raise
    finally:
        raw.autocommit = False


_FACTS = (
    *(tables.roles, tables.grants, tables.users, tables.memberships, tables.revoked_sessions),
    *(tables.rules, tables.role_inheritance, tables.clerk_objects),
)


def put_facts(connection: Connection, world: World) -> None:
    """Replaces users, memberships, grants, revoked sessions and Clerk's roles."""
    for table in reversed(_FACTS):
        connection.execute(delete(table))
    found = fact_records(world)
    for table in _FACTS:
        if found.get(table.name):
            connection.execute(insert(table), found[table.name])


def fact_records(world: World) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table, in an order in which they can be inserted."""
    return {
        "roles": [{"name": role.name, "description": ""} for role in world.roles],
        "grants": [to_row(grant) for grant in world.grants],
        "users": [to_row(user) for user in world.users],
        "memberships": [
            {"organization_id": organization, "user_id": user, "role": role}
            for (organization, user), role in world.memberships.items()
        ],
        "revoked_sessions": [
            {"user_id": user, "session_id": session} for session, user in world.revoked
        ],
        "clerk_objects": clerk_records(
            (
                "role",
                role,
                "active",
                {"key": role, "permissions": [[permission, permission] for permission in some]},
            )
            for role, some in world.organization_permissions.items()
        ),
    }


def clerk_records(
    objects: Iterable[tuple[str, str, str, dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Objects of Clerk, each as its kind, id, status and content."""
    columns = tables.clerk_objects.columns.keys()
    return [
        dict(
            zip(columns, (kind, id_, "1", status, None, None, json.dumps(content), 0), strict=True)
        )
        for kind, id_, status, content in objects
    ]


@contextmanager
def acting(
    connection: Connection,
    user: str,
    organization: str | None = None,
    session: str = "s1",
    role: str = "app",
) -> Iterator[None]:
    """A transaction of a role and an actor, rolled back afterwards."""
    connection.rollback()
    act(connection, Actor(user, session, organization), role)
    try:
        yield
    finally:
        connection.rollback()


def act(connection: Connection, actor: Actor, role: str) -> None:
    """Makes the rest of the transaction that of a role and an actor."""
    connection.execute(
        text("SELECT set_config('role', :role, true), set_config('pdp.actor', :actor, true)"),
        {"role": role, "actor": setting_of(actor)},
    )


def setting_of(actor: Actor) -> str:
    """The setting that names an actor."""
    return json.dumps(
        {
            "user": actor.user_id,
            "organization": actor.organization_id,
            "session": actor.session_id,
        }
    )
