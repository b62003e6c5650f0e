"""A PostgreSQL database that holds the decision point's tables and an application's, with the roles
of a deployment: `app_owner` owns the application's tables, `app` is what the application connects
as and owns nothing."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, delete, insert, make_url, text

from pdp.database.migrations import migrate
from pdp.decision.policy import Policy
from pdp.facts.store import tables
from pdp.facts.store.rows import to_row
from pdp.rls.catalog import read_catalog
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
        connection.exec_driver_sql(
            "CREATE OR REPLACE FUNCTION pdp_rls.clock() RETURNS double precision LANGUAGE sql"
            f" STABLE RETURN {now}::double precision"
        )
        connection.commit()
    return migration.text


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


def put_facts(connection: Connection, world: World) -> None:
    """Replaces users, memberships, grants and revoked sessions."""
    for table in (
        *(tables.grants, tables.memberships, tables.users, tables.revoked_sessions),
        *(tables.role_inheritance, tables.rules, tables.roles),
    ):
        connection.execute(delete(table))
    roles = [{"name": one.name, "description": ""} for one in world.roles]
    _insert(connection, tables.roles, roles)
    _insert(connection, tables.grants, [to_row(one) for one in world.grants])
    _insert(
        connection,
        tables.users,
        [to_row(one) for one in world.users],
    )
    _insert(
        connection,
        tables.memberships,
        [
            {"organization_id": organization, "user_id": user, "role": role}
            for (organization, user), role in world.memberships.items()
        ],
    )
    _insert(
        connection,
        tables.revoked_sessions,
        [{"user_id": user, "session_id": session} for session, user in world.revoked],
    )


def _insert(connection: Connection, table: Any, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


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
    connection.execute(text(f"SET LOCAL ROLE {role}"))
    actor = {"user": user, "organization": organization, "session": session}
    connection.execute(
        text("SELECT set_config('pdp.actor', :actor, true)"), {"actor": json.dumps(actor)}
    )
    try:
        yield
    finally:
        connection.rollback()
