"""What a login of the application does with its session: other roles, plans that were kept, and
what `EXPLAIN` and the catalog show."""

from collections.abc import Iterator

import psycopg
import pytest
from pdp_client.rls import transaction
from sqlalchemy import Engine, make_url

from tests.kit.rls.school import IVAN, MARIA, lesson, put_school

SECRET = "top secret"
ROWS = [lesson(1, "o1", title="a"), lesson(2, "o1", title="b"), lesson(3, "o2", title=SECRET)]
TURNS = ((IVAN, ["l1", "l2"]), (MARIA, ["l3"]))
IDS = "SELECT id FROM lessons ORDER BY id"


@pytest.fixture(scope="module")
def server(engine: Engine) -> Engine:
    """The server with the school."""
    with engine.connect() as connection:
        put_school(connection, rows=ROWS)
        connection.exec_driver_sql("ANALYZE lessons")
        connection.commit()
    return engine


def login(server: Engine, user: str) -> psycopg.Connection:
    url = make_url(server.url).set(drivername="postgresql", username=user)
    return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


@pytest.fixture
def app(server: Engine) -> Iterator[psycopg.Connection]:
    with login(server, "app") as connection:
        yield connection


def ids(connection: psycopg.Connection, query: str = IDS) -> list[str]:
    return [row[0] for row in connection.execute(query)]


def test_a_login_takes_no_other_role_and_makes_nothing_of_the_table(
    app: psycopg.Connection,
) -> None:
    for statement in (
        *(f"SET ROLE {role}" for role in ("app_owner", "pdp_rls", "postgres")),
        "SET SESSION AUTHORIZATION app_owner",
        "CREATE TABLE pg_temp.mine () INHERITS (lessons)",
        "CREATE RULE mine AS ON UPDATE TO lessons DO ALSO DELETE FROM tags",
        "CREATE STATISTICS mine ON id, title FROM lessons",
        "CREATE INDEX ON lessons ((1 / length(title)))",
        "CREATE POLICY mine ON lessons USING (true)",
        "ALTER ROLE app BYPASSRLS",
        "GRANT pdp_rls TO app",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), transaction(app, IVAN):
            app.execute(statement)
    with transaction(app, IVAN):
        app.execute("RESET ROLE")
        assert ids(app) == ["l1", "l2"]


def test_a_plan_of_another_role_is_made_again(server: Engine) -> None:
    with login(server, "postgres") as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.execute(f"PREPARE kept AS {IDS}")
        assert ids(connection, "EXECUTE kept") == ["l1", "l2", "l3"]
        with transaction(connection, IVAN):
            connection.execute("SET LOCAL ROLE app")
            assert ids(connection, "EXECUTE kept") == ["l1", "l2"]
        connection.execute("SET ROLE app")
        assert ids(connection, "EXECUTE kept") == []


def test_a_kept_plan_has_the_rows_of_each_actor(app: psycopg.Connection) -> None:
    app.execute("SET plan_cache_mode = force_generic_plan")
    app.execute(f"PREPARE kept AS {IDS}")
    block = (
        "DO $$ BEGIN FOR i IN 1..2 LOOP PERFORM set_config('test.seen', (SELECT"
        " string_agg(id, ',' ORDER BY id) FROM lessons), true);"
        f" PERFORM set_config('pdp.actor', '{MARIA.setting()}', true); END LOOP; END $$"
    )
    for _ in range(2):
        for actor, expected in TURNS:
            with transaction(app, actor):
                assert ids(app, "EXECUTE kept") == expected
        assert ids(app, "EXECUTE kept") == []
    with transaction(app, IVAN):  # one statement of a block is planned once, and executed twice
        app.execute(block)
        assert ids(app, "SELECT current_setting('test.seen')") == ["l3"]


# --- limits ---------------------------------------------------------------------------------------


def test_explain_shows_how_many_rows_are_hidden_and_nothing_of_them(
    app: psycopg.Connection,
) -> None:
    with transaction(app, IVAN):
        app.execute("SET LOCAL enable_indexscan = off")
        app.execute("SET LOCAL enable_bitmapscan = off")
        plan = "\n".join(ids(app, f"EXPLAIN (ANALYZE, VERBOSE, BUFFERS) {IDS}"))
    assert "Rows Removed by Filter: 1" in plan
    assert SECRET not in plan


def test_the_catalog_shows_how_many_rows_a_table_has(app: psycopg.Connection) -> None:
    assert ids(app, "SELECT reltuples::int FROM pg_class WHERE relname = 'lessons'") == [3]


def test_a_temporary_table_stands_before_the_table_for_the_next_user_of_the_connection(
    app: psycopg.Connection,
) -> None:
    with transaction(app, IVAN):
        app.execute("CREATE TEMPORARY TABLE lessons AS SELECT 'forged' AS id")
    with transaction(app, MARIA):
        assert ids(app) == ["forged"]
        assert ids(app, "SELECT id FROM public.lessons") == ["l3"]
        app.execute("SET LOCAL search_path = public, pg_temp")
        assert ids(app) == ["l3"]
