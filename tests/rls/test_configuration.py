"""What a configuration may say, and what is refused by name."""

from collections.abc import Iterator

import pytest
from pdp_client import FilterUnsupported
from sqlalchemy import Connection, create_engine, text

from pdp.errors import InvalidPolicy
from pdp.model import Effect, Rule
from pdp.rls.catalog import read_catalog
from pdp.rls.config import parse_config
from pdp.rls.migration import Migration, make_migration
from tests.kit.decision.engine import policy_of
from tests.kit.rls.school import school

_COLUMNS = """
    id text, padded character(3), folded public.folded, small real, stamp timestamptz, "order" text,
    number bigint, key uuid, owner varchar(20), price numeric(10, 2), document jsonb,
    plain json, weights double precision[]
"""


@pytest.fixture(autouse=True)
def things(connection: Connection) -> Iterator[None]:
    connection.execute(text("CREATE TYPE folded AS ENUM ('a', 'b')"))
    connection.execute(text(f"CREATE TABLE things ({_COLUMNS})"))
    connection.execute(text("CREATE VIEW seen AS SELECT id FROM things"))
    connection.execute(text("CREATE TABLE parts (id text, at date) PARTITION BY RANGE (at)"))
    connection.commit()
    yield
    connection.rollback()
    connection.execute(text("DROP TABLE things, parts CASCADE"))
    connection.execute(text("DROP TYPE folded"))
    connection.commit()


def made(connection: Connection, table: str, condition: str = "") -> Migration:
    config = parse_config(f"roles: [app]\ntables:\n  public.things: {table}")
    policy = policy_of(school([Rule("r", "A", Effect.ALLOW, "*", condition)]))
    return make_migration(policy, config, read_catalog(connection, config))


def table_of(**fields: str) -> str:
    found = {"type": "lesson", "id": "id", "permissions": '{read: "lesson:view"}', **fields}
    return "{" + ", ".join(f"{name}: {value}" for name, value in found.items()) + "}"


@pytest.mark.parametrize("id_", ["id", "number", "key", "owner", "order"])
def test_an_id_is_a_text_an_integer_or_a_uuid(connection: Connection, id_: str) -> None:
    assert made(connection, table_of(id=id_)).policies


@pytest.mark.parametrize(
    ("fields", "condition", "said"),
    [
        ({"id": "price"}, "", "the column public.things.price of type numeric"),
        ({"id": "missing"}, "", "has no column missing"),
        ({"organization": "number"}, "", "is not stored as text"),
        ({"attributes": "{x: padded}"}, "x == 'a'", r"type character\(3\)"),
        ({"attributes": "{x: folded}"}, "x == 'a'", "type public.folded"),
        ({"attributes": "{x: small}"}, "x == 1.0", "type real"),
        ({"attributes": "{x: stamp}"}, "x == 'a'", "type timestamp"),
        ({"attributes": "{x: plain}"}, "x == 'a'", "type json$"),
        ({"attributes": "{x: weights}"}, "'a' in x ", r"type double precision\[\]"),
        ({"attributes": "{x: {column: document, null_is: value}}"}, "x == 'a'", "type jsonb"),
        (
            {"attributes": "{x: document}"},
            "x == actor.attributes.y",
            "== of a value of the actor with lesson.x|== of lesson.x with a value of the actor",
        ),
        ({"attributes": "{x: document}"}, "x == actor.id", None),
        ({"attributes": "{y: owner}"}, "x == 'a'", "things, lesson:view: .*lesson.x is not descr"),
        (
            {"attributes": "{x: {table: public.things, on: {id: id}, column: owner}}"},
            "x == actor.attributes.y",
            "== of lesson.x with a value of the actor",
        ),
        ({"attributes": "{x: owner}"}, "resource.id < 'a'", None),
        ({"id": "number"}, "resource.id < 'a'", "which is not stored as text"),
    ],
)
def test_what_has_no_exact_comparison_is_refused(
    connection: Connection, fields: dict[str, str], condition: str, said: str | None
) -> None:
    condition = condition.replace("x ", "resource.attributes.x ")
    if said is None:
        assert made(connection, table_of(**fields), condition)
        return
    with pytest.raises(FilterUnsupported, match=said):
        made(connection, table_of(**fields), condition)


def test_columns_of_two_types_do_not_join(connection: Connection) -> None:
    joined = "{x: {table: public.things, on: {id: number}, column: owner}}"
    condition = "'a' in resource.attributes.x"
    with pytest.raises(
        FilterUnsupported, match=r"things\.id of type text beside public\.things\.num"
    ):
        made(connection, table_of(attributes=joined), condition)
    assert made(
        connection, table_of(attributes=joined.replace("id: number", "id: owner")), condition
    )


def test_an_attribute_that_no_row_has_is_null(connection: Connection) -> None:
    condition = "has(resource.attributes.x)"
    migration = made(connection, table_of(attributes="{x: null}"), condition)
    [policy] = migration.policies["public.things"]
    assert policy.condition == "false"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (table_of(permissions='{read: "course:view"}'), "not a permission on resources of type"),
        (table_of(permissions='{read: "lesson:print"}'), "does not declare the permission"),
        (table_of(parent="{column: owner, table: public.other}"), "no table public.other"),
        (table_of(parent="{column: owner, table: public.lessons}"), "is not described"),
        (
            table_of(attributes="{x: {table: public.seen, on: {id: id}, column: id}}"),
            "public.seen is not a plain table",
        ),
        (
            table_of(attributes="{x: {table: public.parts, on: {id: id}, column: id}}"),
            "public.parts is not a plain table",
        ),
        (
            table_of(attributes="{x: {table: away.parts, on: {id: id}, column: id}}"),
            "in one database",
        ),
    ],
)
def test_tables_that_do_not_go_together_are_refused(
    connection: Connection, table: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        made(connection, table)


def test_the_decision_points_tables_are_in_the_same_database(connection: Connection) -> None:
    config = parse_config(
        f"roles: [app]\npdp_schema: elsewhere\ntables:\n  public.things: {table_of()}"
    )
    with pytest.raises(ValueError, match="table users is not in the schema elsewhere"):
        read_catalog(connection, config)


def test_other_databases_than_postgresql_are_refused() -> None:
    config = parse_config(f"roles: [app]\ntables:\n  public.things: {table_of()}")
    with (
        create_engine("sqlite://").connect() as connection,
        pytest.raises(ValueError, match="needs PostgreSQL"),
    ):
        read_catalog(connection, config)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("tables: {}", "roles"),
        ("roles: []\ntables: {a.b: {type: t, id: id}}", "roles"),
        ("roles: [app]\ntables: {b: {type: t, id: id}}", "tables"),
        ("roles: [app]\ntables: {a.b: {type: t}}", r"tables\.a\.b\.id"),
        ("roles: [app]\ntables: {a.b: {type: t, id: id, organisation: o}}", "organisation"),
        ("roles: [app]\ntables: {a.b: {type: t, id: id, parent: {column: c}}}", "exactly one of"),
        (
            "roles: [app]\ntables: {a.b: {type: t, id: id, attributes: {x: {table: a.c, on: {}}}}}",
            "on",
        ),
    ],
)
def test_a_configuration_of_another_shape_is_refused(document: str, said: str) -> None:
    with pytest.raises(InvalidPolicy, match=said):
        parse_config(document)
