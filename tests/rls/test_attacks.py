"""What an attacker, or a mistake of the application, tries against row-level security."""

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from pdp.model import (
    Effect,
    Grant,
    OnResource,
    ResourceRef,
    Role,
    Rule,
    ToUser,
    User,
    UserStatus,
)
from pdp.rls.config import parse_config
from tests.kit.decision.engine import policy_of
from tests.kit.rls.database import LESSONS, acting, apply, execute, put_facts
from tests.kit.rls.school import IVAN, MARIA, lesson, put_school, school


def ids(connection: Connection, *actor: str | None, role: str = "app", **named: str) -> set[str]:
    with acting(connection, *actor, role=role, **named):
        return set(connection.execute(text("SELECT id FROM lessons")).scalars())


def refused(connection: Connection, statement: str, *actor: str | None) -> str:
    with acting(connection, *actor), pytest.raises(DBAPIError) as caught:
        connection.execute(text(statement))
    return str(caught.value.orig)


# --- who has rows ---------------------------------------------------------------------------------


def test_the_members_of_an_organization_have_its_rows(connection: Connection) -> None:
    put_school(connection)
    assert ids(connection, "u1", "o1") == {"l1", "l2"}
    assert ids(connection, "u2", "o2") == {"l3"}


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(None, id="absent"),
        pytest.param("", id="empty, as in a pooled connection"),
        pytest.param("{}", id="no user"),
        pytest.param("null", id="null"),
        pytest.param('{"user": "u1", "organization": "o1"}', id="no session"),
        pytest.param('{"user": "u1", "organization": "o1", "session": ""}', id="empty session"),
        pytest.param('{"user": "U1", "organization": "o1", "session": "s"}', id="another case"),
        pytest.param('{"user": "u9", "organization": "o1", "session": "s"}', id="unknown user"),
        pytest.param('{"user": "u1", "organization": "o2", "session": "s"}', id="no member"),
        pytest.param('{"user": ["u1"], "organization": "o1", "session": "s"}', id="a list"),
    ],
)
def test_without_an_actor_there_are_no_rows(connection: Connection, setting: str | None) -> None:
    put_school(connection)
    connection.execute(text("SET LOCAL ROLE app"))
    if setting is not None:
        bind = text("SELECT set_config('pdp.actor', :setting, true)")
        connection.execute(bind, {"setting": setting})
    assert connection.execute(text("SELECT id FROM lessons")).all() == []
    connection.rollback()


def test_a_setting_that_is_not_json_fails_the_statement(connection: Connection) -> None:
    put_school(connection)
    connection.execute(text("SET LOCAL ROLE app"))
    connection.execute(text("SELECT set_config('pdp.actor', 'u1', true)"))
    with pytest.raises(DBAPIError, match="json"):
        connection.execute(text("SELECT id FROM lessons"))
    connection.rollback()


def test_disabled_users_and_revoked_sessions_have_no_rows(connection: Connection) -> None:
    world = school()
    world.users = [User("u1", status=UserStatus.DISABLED), User("u2")]
    world.revoked = {("s2", "u2")}
    put_school(connection, world)
    assert ids(connection, "u1", "o1") == set()
    assert ids(connection, "u2", "o2", "s2") == set()
    assert ids(connection, "u2", "o2", "s3") == {"l3"}


def test_the_owner_has_no_rows_because_it_is_forced(connection: Connection) -> None:
    put_school(connection)
    assert ids(connection, "u1", "o1", role="app_owner") == set()
    connection.execute(text("ALTER TABLE lessons NO FORCE ROW LEVEL SECURITY"))
    connection.commit()
    assert len(ids(connection, "u1", "o1", role="app_owner")) == 4


def test_a_grant_counts_without_a_new_migration(connection: Connection) -> None:
    put_school(connection)
    assert "l5" not in ids(connection, "u1", "o1")
    connection.execute(
        text(
            "INSERT INTO grants (id, role, user_id, resource_type, resource_id)"
            " VALUES ('g5', 'A', 'u1', 'lesson', 'l5')"
        )
    )
    connection.commit()
    assert "l5" in ids(connection, "u1", "o1")
    connection.execute(text("DELETE FROM grants WHERE id = 'g5'"))
    connection.commit()
    assert "l5" not in ids(connection, "u1", "o1")


def test_a_prepared_statement_does_not_remember_an_actor(
    connection: Connection, engine: Engine
) -> None:
    put_school(connection)
    url = make_url(engine.url).set(drivername="postgresql", username="app")
    with psycopg.connect(url.render_as_string(hide_password=False)) as app:
        app.prepare_threshold = 0
        for _round in range(8):  # past the fifth execution, PostgreSQL takes a generic plan
            for actor, expected in ((IVAN, 2), (MARIA, 1)):
                with app.transaction():
                    app.execute("SELECT set_config('pdp.actor', %s, true)", [actor.setting()])
                    found = app.execute("SELECT id FROM lessons WHERE id <> %s", ["x"])
                    assert len(found.fetchall()) == expected


def test_a_parallel_worker_has_the_same_actor(connection: Connection) -> None:
    put_school(connection)
    with acting(connection, "u1", "o1"):
        number = connection.execute(text("SHOW server_version_num")).scalar_one()
        old = int(number) < 160_000
        setting = "force_parallel_mode" if old else "debug_parallel_query"
        connection.execute(text(f"SET LOCAL {setting} = on"))
        found = connection.execute(text("SELECT id FROM lessons")).scalars()
        assert set(found) == {"l1", "l2"}


# --- writing --------------------------------------------------------------------------------------

_INSERT = "INSERT INTO lessons (id, organization_id) VALUES"


def test_a_row_of_another_organization_is_not_inserted(connection: Connection) -> None:
    put_school(connection)
    assert "row-level security" in refused(connection, f"{_INSERT} ('l9', 'o2')", "u1", "o1")
    with acting(connection, "u1", "o1"):
        connection.execute(text(f"{_INSERT} ('l9', 'o1')"))


@pytest.mark.parametrize("organization", ["'o2'", "NULL", "''", "'O1'"])
def test_a_row_is_not_moved_to_another_organization(
    connection: Connection, organization: str
) -> None:
    put_school(connection)
    statement = f"UPDATE lessons SET organization_id = {organization}"
    assert "row-level security" in refused(connection, statement, "u1", "o1")


def test_a_conflict_does_not_overwrite_a_row_that_is_not_seen(connection: Connection) -> None:
    put_school(connection)
    upsert = f"{_INSERT} ('l3', 'o1') ON CONFLICT (id) DO UPDATE SET organization_id = 'o1'"
    assert "row-level security" in refused(connection, upsert, "u1", "o1")
    ignored = f"{_INSERT} ('l3', 'o1') ON CONFLICT DO NOTHING"
    with acting(connection, "u1", "o1"):
        assert connection.execute(text(ignored)).rowcount == 0


def test_a_key_that_is_taken_shows_that_a_row_exists(connection: Connection) -> None:
    """A limit that PostgreSQL has and the documentation names."""
    put_school(connection)
    assert "duplicate key" in refused(connection, f"{_INSERT} ('l3', 'o1')", "u1", "o1")


def test_returning_takes_the_permission_to_read(connection: Connection) -> None:
    put_school(connection, school([Rule("create", "A", Effect.ALLOW, "lesson:edit", "")]))
    with acting(connection, "u1", "o1"):
        connection.execute(text(f"{_INSERT} ('l9', 'o1')"))
    assert "row-level security" in refused(
        connection, f"{_INSERT} ('l9', 'o1') RETURNING id", "u1", "o1"
    )
    with acting(connection, "u1", "o1"):
        assert connection.execute(text("UPDATE lessons SET seats = seats")).rowcount == 0


def test_a_command_without_a_permission_is_refused(connection: Connection) -> None:
    put_school(connection)
    without = LESSONS.tables["public.lessons"]
    assert without.permissions is not None
    table = without.model_copy(
        update={"permissions": without.permissions.model_copy(update={"delete": None})}
    )
    tables = {**LESSONS.tables, "public.lessons": table}
    apply(
        connection,
        policy_of(school()),
        LESSONS.model_copy(update={"tables": tables}),
        now=None,
    )
    with acting(connection, "u1", "o1"):
        assert connection.execute(text("UPDATE lessons SET seats = 1")).rowcount == 2
        assert connection.execute(text("DELETE FROM lessons")).rowcount == 0


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE lessons",
        "ALTER TABLE lessons DISABLE ROW LEVEL SECURITY",
        "DROP POLICY pdp_read ON lessons",
        "CREATE TRIGGER t BEFORE UPDATE ON lessons EXECUTE FUNCTION trigger_in()",
        "SELECT pdp_rls.principal()",
        "SELECT pdp_rls.actor_attributes()",
        "SELECT pdp_rls.granted_to_user(ARRAY['A'], 'lesson')",
        "SET row_security = off; SELECT * FROM lessons",
        "SELECT * FROM users",
        "INSERT INTO grants (id, role, user_id) VALUES ('g9', 'A', 'u1')",
    ],
)
def test_what_passes_row_level_security_is_not_allowed(
    connection: Connection, statement: str
) -> None:
    put_school(connection)
    assert refused(connection, statement, "u1", "o1")


# --- names and texts ------------------------------------------------------------------------------


@pytest.fixture
def evil(connection: Connection) -> Iterator[str]:
    """A schema in which the application's role may make anything."""
    connection.execute(text("CREATE SCHEMA evil AUTHORIZATION app"))
    connection.commit()
    yield "evil"
    connection.rollback()
    connection.execute(text("DROP SCHEMA evil CASCADE"))
    connection.commit()


def test_a_search_path_does_not_lead_to_other_tables(connection: Connection, evil: str) -> None:
    put_school(connection)
    with acting(connection, "u1", "o1"):
        for schema in (evil, "pg_temp"):
            connection.execute(text(f"CREATE TABLE {schema}.memberships AS TABLE tags"))
            connection.execute(
                text(
                    f"CREATE FUNCTION {schema}.nullif_is_mine() RETURNS text LANGUAGE sql"
                    " AS 'SELECT 1::text'"
                )
            )
            connection.execute(
                text(f"CREATE TABLE {schema}.users (id text, status text, attributes text)")
            )
        connection.execute(
            text(
                f"CREATE FUNCTION {evil}.always(text, text) RETURNS boolean LANGUAGE sql"
                " AS 'SELECT true'"
            )
        )
        connection.execute(
            text(
                f"CREATE OPERATOR {evil}.= (FUNCTION = {evil}.always, LEFTARG = text,"
                " RIGHTARG = text)"
            )
        )
        connection.execute(text(f"SET LOCAL search_path = {evil}, pg_temp, pg_catalog, public"))
        found = connection.execute(text("SELECT id FROM public.lessons")).scalars()
        assert set(found) == {"l1", "l2"}


def test_a_function_does_not_see_rows_before_the_policy(connection: Connection, evil: str) -> None:
    put_school(connection)
    with acting(connection, "u1", "o1"):
        connection.execute(
            text(
                f"CREATE FUNCTION {evil}.leak(id text) RETURNS boolean LANGUAGE plpgsql"
                " COST 0.0000001 AS $$ BEGIN"
                f" INSERT INTO {evil}.seen VALUES (id); RETURN true; END $$"
            )
        )
        connection.execute(text(f"CREATE TABLE {evil}.seen (id text)"))
        connection.execute(text(f"SELECT * FROM lessons WHERE {evil}.leak(id)"))
        seen = connection.execute(text(f"SELECT DISTINCT id FROM {evil}.seen")).scalars()
        assert set(seen) == {"l1", "l2"}


_TEXTS = ["it's", "$pdp$ END", "'; DROP TABLE lessons; --", "a\\'b", "$1", ":name", "%s", "é\n\t"]


@pytest.mark.parametrize("value", _TEXTS)
def test_a_text_of_a_rule_is_only_a_text(connection: Connection, value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    condition = (
        f'resource.attributes.owner == "{quoted}" && '
        f'(resource.attributes.tags.exists(t, t == "{quoted}") || '
        f'resource.attributes.owner.endsWith("{quoted}x"))'
    ).replace("\t", "\\t")
    rows = [lesson(1, "o1", owner=value, tags=[value]), lesson(2, "o1", owner="x", tags=["x"])]
    put_school(connection, school([Rule("r", "A", Effect.ALLOW, "*", condition)]), rows)
    assert ids(connection, "u1", "o1") == {"l1"}


def test_names_of_tables_and_columns_are_only_names(connection: Connection) -> None:
    schema, table, column = 'pub"lic; --', "le$pdp$ss'ons", "o'w\"n); DROP TABLE users; --"
    parts = [schema, table, column]
    quoted_schema, quoted, quoted_column = ('"' + one.replace('"', '""') + '"' for one in parts)
    connection.execute(text(f"DROP SCHEMA IF EXISTS {quoted_schema} CASCADE"))
    connection.execute(text(f"CREATE SCHEMA {quoted_schema}"))
    connection.exec_driver_sql(
        f"CREATE TABLE {quoted_schema}.{quoted} (id int8 PRIMARY KEY, {quoted_column} text)"
    )
    connection.exec_driver_sql(
        f"INSERT INTO {quoted_schema}.{quoted} VALUES (1, 'u1'), (2, 'u2'), (3, 'u1')"
    )
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {quoted_schema} TO app")
    connection.exec_driver_sql(f"GRANT ALL ON {quoted_schema}.{quoted} TO app")
    connection.commit()
    world = school([Rule("r", "A", Effect.ALLOW, "*", "resource.attributes.owner == actor.id")])
    put_school(connection, world)
    # Of these resources no organization is known, so grants on single ones are needed.
    world.roles.append(Role("B"))
    world.grants += [
        Grant(f"g{one}", "A", ToUser("u1"), OnResource(ResourceRef("lesson", one)))
        for one in ("1", "2", "03", "x", "9223372036854775808")
    ]
    put_facts(connection, world)
    connection.commit()
    config = parse_config(
        f"""
roles: [app]
tables:
  {_yaml(f"{schema}.{table}")}:
    type: lesson
    id: id
    permissions: {{read: lesson:view}}
    attributes: {{owner: {_yaml(column)}}}
"""
    )
    apply(connection, policy_of(world), config, now=None)
    with acting(connection, "u1", "o1"):
        found = connection.exec_driver_sql(f"SELECT id FROM {quoted_schema}.{quoted}").scalars()
        assert set(found) == {1}
    execute(connection, f"BEGIN; DROP SCHEMA {quoted_schema} CASCADE; COMMIT")


def _yaml(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
