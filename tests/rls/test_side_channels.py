"""What a role learns about rows that it does not have: by errors, statistics, other commands and
functions. Limits that PostgreSQL has are tests too: docs/row-level-security.md names them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from pdp_client.rls import transaction
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from pdp.model import Effect, Grant, OnResource, ResourceRef, Role, Rule, ToUser, User
from pdp.rls.config import parse_config
from tests.kit.decision.engine import policy_of
from tests.kit.rls.database import LESSONS, acting, apply, put_facts
from tests.kit.rls.school import IVAN, lesson, put_school, school

SECRET = "top secret"
HIDDEN = lesson(3, "o2", title=SECRET, owner=SECRET, seats=7.0)
ROWS = [lesson(1, "o1", title="4", seats=1.0), lesson(2, "o1", title="5", seats=2.0), HIDDEN]


@pytest.fixture
def rows(connection: Connection) -> Connection:
    """Two rows of the actor, and one of another organization."""
    put_school(connection, rows=ROWS)
    return connection


def done(connection: Connection, statement: str) -> list[Any]:
    with acting(connection, "u1", "o1"):
        return list(connection.execute(text(statement)).scalars())


def failure(connection: Connection, statement: str) -> psycopg.Error:
    with acting(connection, "u1", "o1"), pytest.raises(DBAPIError) as caught:
        connection.execute(text(statement))
    assert isinstance(caught.value.orig, psycopg.Error)
    return caught.value.orig


@contextmanager
def made(connection: Connection, statements: str, undo: str) -> Iterator[None]:
    """What a superuser has made."""
    connection.rollback()
    connection.exec_driver_sql(statements)
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.exec_driver_sql(undo)
        connection.commit()


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "condition",
    [
        pytest.param("1 / (seats - 7) < 9", id="division by zero"),
        pytest.param("title::integer > 0", id="a cast whose error shows the value"),
        pytest.param("('{' || title || '}')::text[] IS NOT NULL", id="a parser"),
        pytest.param("substring(title, 1, 3 - length(title) % 9) <> ''", id="a length"),
        pytest.param("EXISTS (SELECT 1 / (l.seats - 7) FROM lessons l)", id="a subquery"),
    ],
)
def test_a_condition_of_a_query_does_not_fail_on_rows_of_others(
    rows: Connection, condition: str
) -> None:
    assert done(rows, f"SELECT id FROM lessons WHERE {condition} ORDER BY id") == ["l1", "l2"]
    for command in ("UPDATE lessons SET seats = 1", "DELETE FROM lessons"):
        assert set(done(rows, f"{command} WHERE {condition} RETURNING id")) == {"l1", "l2"}


def test_a_condition_would_fail_on_that_row(rows: Connection) -> None:
    """Positive control: a superuser has all rows."""
    for condition in ("1 / (seats - 7) < 9", "title::integer > 0"):
        with pytest.raises(DBAPIError, match=r"division by zero|top secret"):
            rows.execute(text(f"SELECT id FROM lessons WHERE {condition}"))
        rows.rollback()


def test_an_error_of_a_constraint_shows_no_columns(rows: Connection) -> None:
    taken = failure(rows, "INSERT INTO lessons (id, organization_id) VALUES ('l3', 'o1')")
    assert "duplicate key" in str(taken)
    assert taken.diag.message_detail is None
    missing = failure(rows, "UPDATE lessons SET id = NULL WHERE id = 'l1'")
    assert "null value" in str(missing)
    assert missing.diag.message_detail is None


def test_a_refused_row_is_not_shown(rows: Connection) -> None:
    refused = failure(rows, "UPDATE lessons SET organization_id = 'o2', title = 'mine'")
    assert "row-level security" in str(refused)
    assert refused.diag.message_detail is None


_PRICED = """
roles: [app]
tables:
  public.priced:
    type: lesson
    id: id
    organization: organization_id
    permissions: {read: "lesson:view"}
    attributes: {price: price, score: score, data: data}
"""
_BEYOND = [
    *(("price", odd) for odd in ("1e400", "-1e400", "NaN", "Infinity", "-Infinity")),
    *(("score", odd) for odd in ("NaN", "Infinity", "-Infinity")),
    *(("data", odd) for odd in ("1e400", "-1e400", '{"level": 1e400}', '"6"', "[6]", "null")),
]
"""Numbers that no question holds; of a jsonb also what is no object."""


@pytest.mark.parametrize(
    ("column", "path", "allowed"),
    [
        *(("price", "price", one) for one in ("{} > 5.0", "!({} in actor.attributes.others)")),
        *(("score", "score", one) for one in ("{} != 4.0", "!({} in actor.attributes.others)")),
        *(("data", "data.level", one) for one in ("{} > 5.0", "{} != 4.0", "!({} in [4.0])")),
    ],
)
def test_a_number_that_no_question_holds_fails_no_statement_and_allows_nothing(
    connection: Connection, column: str, path: str, allowed: str
) -> None:
    number = f"resource.attributes.{path}"
    world = school([Rule("r", "A", Effect.ALLOW, "*", allowed.format(number))])
    for index, denied in enumerate(("> 9.0", "== 3.0", "< 0.0")):
        world.rules.append(Rule(f"d{index}", "A", Effect.DENY, "*", f"{number} {denied}"))
    world.users[0] = User("u1", attributes={"others": [4.0, 5.0]})
    put_school(connection)
    rows = [("six", column, '{"level": 6}' if column == "data" else "6")]
    rows += [(f"{name} {odd}", name, odd) for name, odd in _BEYOND if name == column]
    inserted = "".join(
        f"INSERT INTO priced (id, organization_id, {name}) VALUES ('{row}', 'o1', '{value}');"
        for row, name, value in rows
    )
    with made(
        connection,
        "CREATE TABLE priced"
        " (id text, organization_id text, price numeric, score double precision, data jsonb);"
        f"{inserted}GRANT ALL ON priced TO app",
        "DROP TABLE priced",
    ):
        put_facts(connection, world)
        connection.commit()
        apply(connection, policy_of(world), parse_config(_PRICED), now=None)
        assert done(connection, "SELECT id FROM priced") == ["six"]


def test_a_decimal_that_rounds_to_zero_is_zero(connection: Connection) -> None:
    world = school([Rule("r", "A", Effect.ALLOW, "*", "resource.attributes.price == 0.0")])
    put_school(connection)
    with made(
        connection,
        "CREATE TABLE priced"
        " (id text, organization_id text, price numeric, score double precision, data jsonb);"
        "INSERT INTO priced VALUES ('a', 'o1', 1e-400), ('b', 'o1', 1e-300);"
        "GRANT ALL ON priced TO app",
        "DROP TABLE priced",
    ):
        apply(connection, policy_of(world), parse_config(_PRICED), now=None)
        assert done(connection, "SELECT id FROM priced") == ["a"]


def test_an_integer_id_of_any_length_is_granted_and_denied(connection: Connection) -> None:
    """Also one of 19 digits, such as a Snowflake ID, beside ids that no column holds."""
    ids = [1, 2, 10**18, 2**63 - 1]
    rules = [Rule("all", "B", Effect.ALLOW, "*", "resource.id != '99999999999'")]
    world = school([*rules, Rule("never", "C", Effect.DENY, "*", "")])
    put_school(connection)
    world.roles += [Role("B"), Role("C")]
    world.grants = [
        Grant(f"{role}{one}", role, ToUser("u1"), OnResource(ResourceRef("lesson", str(one))))
        for role, some in (("B", [*ids, 2**63, 10**19]), ("C", [10**18, -(2**63) - 1]))
        for one in some
    ]
    config = _PRICED.replace("price: price, score: score, data: data", "small: small")
    with made(
        connection,
        "CREATE TABLE priced (id int8, organization_id text, small int2);"
        + "".join(f"INSERT INTO priced VALUES ({one}, 'o1');" for one in ids)
        + "GRANT ALL ON priced TO app",
        "DROP TABLE priced",
    ):
        put_facts(connection, world)
        connection.commit()
        apply(connection, policy_of(world), parse_config(config), now=None)
        assert set(done(connection, "SELECT id FROM priced")) == {1, 2, 2**63 - 1}
        with made(
            connection,
            "ALTER TABLE priced RENAME TO wide; CREATE TABLE priced (id int2,"
            " organization_id text, small int2); INSERT INTO priced VALUES (1, 'o1');"
            "GRANT ALL ON priced TO app",
            "DROP TABLE priced; ALTER TABLE wide RENAME TO priced",
        ):
            apply(connection, policy_of(world), parse_config(config), now=None)
            assert done(connection, "SELECT id FROM priced") == [1]


# --- other commands -------------------------------------------------------------------------------


def test_copy_gives_the_rows_of_the_actor_and_takes_none(rows: Connection, engine: Engine) -> None:
    url = make_url(engine.url).set(drivername="postgresql", username="app")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as app:
        with transaction(app, IVAN), app.cursor().copy("COPY lessons (id) TO STDOUT") as copied:
            assert sorted(row[0] for row in copied.rows()) == ["l1", "l2"]
        with (
            pytest.raises(psycopg.errors.FeatureNotSupported, match="row-level security"),
            transaction(app, IVAN),
            app.cursor().copy("COPY lessons (id, organization_id) FROM STDIN") as taken,
        ):
            taken.write_row(("l9", "o1"))


def test_merge_and_locks_take_the_rows_of_the_actor(rows: Connection) -> None:
    merge = (
        "MERGE INTO lessons l USING (VALUES ('l1'), ('l3')) v(id) ON l.id = v.id"
        " WHEN MATCHED THEN UPDATE SET title = 'changed'"
    )
    with acting(rows, "u1", "o1"):
        assert rows.execute(text(merge)).rowcount == 1
    assert done(rows, "SELECT id FROM lessons ORDER BY id FOR UPDATE") == ["l1", "l2"]


def test_statistics_of_the_columns_are_not_shown(rows: Connection) -> None:
    rows.execute(text("ANALYZE lessons"))
    rows.commit()
    statistics = "SELECT count(*) FROM pg_stats WHERE tablename = 'lessons'"
    assert rows.execute(text(statistics)).scalar_one() > 0
    assert done(rows, statistics) == [0]


def test_a_view_and_a_function_of_the_owner_have_no_rows(rows: Connection) -> None:
    with made(
        rows,
        "CREATE VIEW owned AS SELECT id FROM lessons; ALTER VIEW owned OWNER TO app_owner;"
        "CREATE FUNCTION owned() RETURNS bigint LANGUAGE sql SECURITY DEFINER"
        " AS 'SELECT count(*) FROM public.lessons'; ALTER FUNCTION owned() OWNER TO app_owner;"
        "GRANT SELECT ON owned TO app",
        "DROP VIEW owned; DROP FUNCTION owned()",
    ):
        assert done(rows, "SELECT id FROM owned") == []
        assert done(rows, "SELECT owned()") == [0]


# --- limits ---------------------------------------------------------------------------------------


def test_a_function_of_a_superuser_reads_all_rows(rows: Connection) -> None:
    with made(
        rows,
        "CREATE FUNCTION all_ids() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER"
        " AS 'SELECT id FROM public.lessons'",
        "DROP FUNCTION all_ids()",
    ):
        assert set(done(rows, "SELECT all_ids()")) == {"l1", "l2", "l3"}


def test_a_foreign_key_shows_that_a_row_exists_and_nothing_of_it(rows: Connection) -> None:
    with made(
        rows,
        "CREATE TABLE remarks (lesson_id text REFERENCES lessons); GRANT ALL ON remarks TO app",
        "DROP TABLE remarks",
    ):
        assert done(rows, "INSERT INTO remarks VALUES ('l3') RETURNING lesson_id") == ["l3"]
        missing = failure(rows, "INSERT INTO remarks VALUES ('l8')")
        assert missing.diag.message_detail == (
            'Key (lesson_id)=(l8) is not present in table "lessons".'
        )


def test_a_foreign_key_that_cascades_passes_the_policies_of_the_rows_below(
    rows: Connection,
) -> None:
    with made(
        rows,
        "CREATE TABLE remarks (lesson_id text REFERENCES lessons ON DELETE CASCADE);"
        "INSERT INTO remarks VALUES ('l1'), ('l3'); GRANT ALL ON remarks TO app;"
        "ALTER TABLE remarks ENABLE ROW LEVEL SECURITY",
        "DROP TABLE remarks",
    ):
        assert done(rows, "DELETE FROM remarks RETURNING lesson_id") == []
        with acting(rows, "u1", "o1"):
            rows.execute(text("DELETE FROM lessons WHERE id = 'l1'"))
            rows.execute(text("RESET ROLE"))
            below = rows.execute(text("SELECT lesson_id FROM remarks")).scalars()
            assert list(below) == ["l3"]


def test_what_a_session_keeps_outlives_the_transaction_of_the_actor(
    rows: Connection, engine: Engine
) -> None:
    url = make_url(engine.url).set(drivername="postgresql", username="app")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as app:
        with transaction(app, IVAN):
            app.execute("DECLARE kept CURSOR WITH HOLD FOR SELECT id FROM lessons")
            app.execute("CREATE TEMPORARY TABLE copied AS SELECT id FROM lessons")
        assert len(app.execute("FETCH ALL FROM kept").fetchall()) == 2
        assert len(app.execute("SELECT id FROM copied").fetchall()) == 2
        app.execute("DISCARD ALL")  # what a pooler in session mode sends
        with pytest.raises(psycopg.errors.InvalidCursorName):
            app.execute("FETCH ALL FROM kept")


def test_an_actor_set_for_the_whole_session_stays_for_the_next_user(
    rows: Connection, engine: Engine
) -> None:
    url = make_url(engine.url).set(drivername="postgresql", username="app")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as app:
        app.execute("SELECT set_config('pdp.actor', %s, false)", [IVAN.setting()])
        assert len(app.execute("SELECT id FROM lessons").fetchall()) == 2
        app.execute("DISCARD ALL")
        assert app.execute("SELECT id FROM lessons").fetchall() == []


# --- columns of two collations --------------------------------------------------------------------


def test_columns_of_two_collations_compare_by_their_bytes(connection: Connection) -> None:
    rule = Rule("r", "A", Effect.ALLOW, "*", "resource.attributes.owner == resource.attributes.b")
    world = school([rule])
    put_school(connection)
    table = LESSONS.tables["public.lessons"].model_copy(
        update={"parent": None, "attributes": {"owner": "owner", "b": "b"}}
    )
    config = LESSONS.model_copy(update={"tables": {"public.collated": table}})
    with made(
        connection,
        'CREATE TABLE collated (id text, organization_id text, owner text COLLATE "C",'
        ' b text COLLATE "POSIX");'
        "INSERT INTO collated VALUES ('x', 'o1', 'a', 'a'), ('y', 'o1', 'a', 'A');"
        "GRANT ALL ON collated TO app",
        "DROP TABLE collated",
    ):
        apply(connection, policy_of(world), config, now=None)
        assert done(connection, "SELECT id FROM collated") == ["x"]
