"""The failures of `tests/filters/test_published_failures.py`, under row-level security; and those
that row-level security of others has had."""

from collections import Counter

import pytest
from sqlalchemy import Connection, text

from pdp.errors import FilterUnsupported
from pdp.model import (
    EVERYWHERE,
    Effect,
    Grant,
    OnResource,
    Resource,
    ResourceRef,
    ResourceType,
    Rule,
    Tenancy,
    ToUser,
    User,
)
from pdp.rls.catalog import read_catalog
from pdp.rls.config import Parent
from pdp.rls.rules import compile_rules
from tests.kit.decision.engine import policy_of
from tests.kit.filters.published import ABOVE, CASES, case_of, lessons
from tests.kit.filters.tables import put
from tests.kit.filters.worlds import Case
from tests.kit.rls.database import LESSONS, act, acting, apply, apply_within, put_facts
from tests.kit.rls.oracle import compare, empty
from tests.kit.rls.school import lesson, put_school, school


def agree(connection: Connection, case: Case) -> set[str]:
    """The rows that the actor sees, which are those that Check allows, for all commands."""
    connection.rollback()
    empty(connection)
    catalog = read_catalog(connection, LESSONS)
    apply_within(connection, policy_of(case.world), LESSONS, catalog, now=case.now)
    assert not list(compare(0, case, connection, Counter()))
    put(connection, case.rows, case.world.resources)
    put_facts(connection, case.world)
    act(connection, case.token.actor, "app")
    seen = set(connection.execute(text("SELECT id FROM lessons")).scalars())
    connection.rollback()
    return seen


@pytest.mark.parametrize(("rows", "condition", "taken"), CASES)
def test_what_is_seen_is_equal_to_check(
    connection: Connection, rows: list[dict], condition: str, taken: set[str]
) -> None:
    case = case_of(lessons(*rows), condition)
    case.world.users = [User("u1"), User("u2")]
    assert agree(connection, case) == taken


LEVEL = "resource.attributes.level"
NONE: set[str] = set()
PRESENT = {"l0", "l1", "l2"}
EVERY = {"l0", "l1", "l2", "l3"}


@pytest.mark.parametrize(
    ("attributes", "condition", "taken"),
    [
        ({"level": 1.0}, f"{LEVEL} == actor.attributes.level", {"l1"}),
        ({"level": "1"}, f"{LEVEL} == actor.attributes.level", NONE),
        ({"level": "1"}, f"{LEVEL} != actor.attributes.level", PRESENT),
        ({}, f"{LEVEL} != actor.attributes.level", NONE),
        ({"level": None}, f"{LEVEL} != actor.attributes.level", PRESENT),
        ({"level": None}, "!has(actor.attributes.level)", NONE),
        ({}, "!has(actor.attributes.level)", EVERY),
        ({"level": None}, "actor.attributes.level == null", EVERY),
        ({"level": None}, "resource.attributes.title == actor.attributes.level", EVERY),
        ({"level": 1.0}, f"!(actor.attributes.level < {LEVEL})", {"l0", "l1"}),
        ({"levels": [1.0, "2.5"]}, f"{LEVEL} in actor.attributes.levels", {"l1"}),
        ({"levels": []}, f"!({LEVEL} in actor.attributes.levels)", PRESENT),
        ({}, f"!({LEVEL} in actor.attributes.levels)", NONE),
        ({"levels": {"1": 1}}, "!(resource.attributes.owner in actor.attributes.levels)", NONE),
        ({"levels": "1"}, f"{LEVEL} in actor.attributes.levels", NONE),
    ],
)
def test_an_attribute_of_the_actor_may_be_of_any_kind(
    connection: Connection, attributes: dict, condition: str, taken: set[str]
) -> None:
    rows = lessons({"level": 0.0}, {"level": 1.0}, {"level": 2.5}, {})
    case = case_of(rows, condition)
    case.world.users = [User("u1", attributes=attributes)]
    assert agree(connection, case) == taken


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        (f"{LEVEL} > int(now)", {"l2", "l3"}),
        (f"{LEVEL} >= double(int(now))", {"l1", "l2", "l3"}),
        (f"int(now) == {LEVEL}", {"l1"}),
        (f"!({LEVEL} <= int(now))", {"l2", "l3"}),
        (f"!(int(now) in [{LEVEL}, 7])", {"l0", "l2", "l3"}),
        ("resource.attributes.owner != int(now)", {"l0"}),
        ("int(now) > 99", EVERY | {"l4"}),
        ("int(now) == actor.attributes.level", NONE),
        ("now > timestamp('1970-01-01T00:01:39Z') + duration('500ms')", EVERY | {"l4"}),
    ],
)
def test_seconds_of_now_compare_with_numbers(
    connection: Connection, condition: str, taken: set[str]
) -> None:
    rows = lessons({"level": 99.0, "owner": "100"}, {"level": 100.0}, {"level": 100.5},
                   {"level": 101.0}, {})  # fmt: skip
    case = case_of(rows, condition)
    case.now = 100.75
    case.world.users = [User("u1", attributes={"level": 100.75})]
    assert agree(connection, case) == taken


def test_a_deny_rule_that_fails_denies_the_row(connection: Connection) -> None:
    rows = lessons({"open": True}, {"open": False}, {})
    case = case_of(rows, "true", "resource.attributes.open == true")
    assert agree(connection, case) == {"l1"}


def test_an_organization_that_is_empty_is_none(connection: Connection) -> None:
    rows = [Resource("lesson", "l0", None), Resource("lesson", "l1", None)]  # NULL and ''
    rows = [row._replace(attributes=lesson(0, None, owner="").attributes) for row in rows]
    condition = "resource.organization == resource.attributes.owner || resource.organization == ''"
    case = case_of(rows, condition)
    assert agree(connection, case) == set()
    case.world.resource_types = [ResourceType("lesson", Tenancy.NONE)]
    assert agree(connection, case) == {"l0", "l1"}


def test_a_parent_that_the_actor_cannot_see_still_counts(connection: Connection) -> None:
    """A subquery of a policy sees what the actor sees; these lookups are functions."""
    rows = [
        Resource("lesson", "l0", None, ResourceRef("course", "c1"), lesson(0, None).attributes),
        Resource("lesson", "l1", "o2", ResourceRef("course", "c1"), lesson(0, None).attributes),
    ]
    case = case_of(rows, "true")
    case.world.resources = dict(ABOVE)
    case.world.grants = [Grant("g", "A", ToUser("u1"), OnResource(ResourceRef("catalog", "k1")))]
    actor = case.token.actor.__class__("u1", "s1", "o1")
    case.token = case.token.__class__(
        **{
            **{one: getattr(case.token, one) for one in case.token.__slots__},
            "actor": actor,
        }
    )
    assert agree(connection, case) == {"l0"}
    with acting(connection, "u1", "o1"):
        assert connection.execute(text("SELECT id FROM courses")).all() == []


def test_a_grant_on_a_parent_counts_that_only_its_id_is_known_of(connection: Connection) -> None:
    reference = LESSONS.tables["public.lessons"].model_copy(
        update={"parent": Parent(column="course_id", type="course")}
    )
    tables = {**LESSONS.tables, "public.lessons": reference}
    course = ResourceRef("course", "c1")
    rows = [
        lesson(0, "o1")._replace(parent=course),
        lesson(1, "o2")._replace(parent=course),
        lesson(2, "o1"),
    ]
    world = school()
    world.grants = [Grant("g", "A", ToUser("u1"), OnResource(course))]
    world.resources = {course: Resource("course", "c1")}
    put_school(connection, world, rows)
    config = LESSONS.model_copy(update={"tables": tables})
    apply(connection, policy_of(world), config, now=None)
    with acting(connection, "u1", "o1"):
        found = connection.execute(text("SELECT id FROM lessons")).scalars()
        assert set(found) == {"l0"}


@pytest.mark.parametrize(
    ("condition", "operator"),
    [
        ("context.place == 'office'", "context"),
        ("has(context.place)", "context"),
        ("actor.claims.plan == 'pro'", "actor.claims"),
        ("'lesson:edit' in actor.claimed_permissions", "actor.claimed_permissions"),
        ("actor.impersonator == ''", "actor.impersonator"),
        ("actor.first_factor_minutes < 5.0", "actor.first_factor_minutes"),
        ("actor.second_factor_minutes < 5.0", "actor.second_factor_minutes"),
        ("now.getHours() > 8", "getHours"),
        ("now - duration('1h') > timestamp('2026-01-01T00:00:00Z')", "-"),
        ("timestamp(actor.attributes.until) > now", "timestamp"),
        ("timestamp(resource.attributes.owner) > now", "timestamp"),
        ("string(now) < resource.attributes.owner", "string"),
        ("resource.attributes.owner.startsWith(actor.attributes.name)", "startsWith"),
        ("resource.attributes.owner.matches('a')", "matches"),
    ],
)
def test_what_the_database_does_not_know_is_refused_by_name(condition: str, operator: str) -> None:
    policy = policy_of(school([Rule("r", "A", Effect.DENY, "lesson:view", condition)]))
    with pytest.raises(FilterUnsupported) as refused:
        compile_rules(policy, "lesson:view", "lesson")
    assert refused.value.metadata["operator"] == operator
    assert refused.value.metadata["rule"] == "r"


def test_what_cannot_matter_is_not_refused() -> None:
    rules = [Rule("r", "A", Effect.ALLOW, "*", "false && context.place == 'office'")]
    compile_rules(policy_of(school(rules)), "lesson:view", "lesson")


def test_a_plan_has_no_subquery_for_each_row(connection: Connection) -> None:
    condition = (
        "resource.attributes.owner == actor.id"
        " || resource.attributes.editor in actor.attributes.names"
    )
    world = school(
        [
            Rule("allow", "A", Effect.ALLOW, "*", condition),
            Rule("deny", "A", Effect.DENY, "*", "resource.attributes.open == false"),
        ]
    )
    world.grants.append(Grant("w", "A", ToUser("u1"), EVERYWHERE))
    rows = [lesson(number, "o1", owner="u1", open=True) for number in range(200)]
    put_school(connection, world, rows)
    flat = LESSONS.tables["public.lessons"].model_copy(update={"parent": None})
    tables = {**LESSONS.tables, "public.lessons": flat}
    apply(connection, policy_of(world), LESSONS.model_copy(update={"tables": tables}), now=None)
    with acting(connection, "u1", "o1"):
        plan = connection.exec_driver_sql("EXPLAIN (ANALYZE, FORMAT JSON) SELECT id FROM lessons")
        [node] = [one["Plan"] for one in plan.scalar_one()]
    assert node["Actual Rows"] == 200
    below = node["Plans"]
    assert {one["Parent Relationship"] for one in below} == {"InitPlan"}
    assert {one["Actual Loops"] for one in below} <= {0, 1}
    assert "exists_" not in node["Filter"]


def test_the_organization_of_a_query_is_found_by_an_index(connection: Connection) -> None:
    put_school(connection)
    flat = LESSONS.tables["public.lessons"].model_copy(update={"parent": None})
    tables = {**LESSONS.tables, "public.lessons": flat}
    config = LESSONS.model_copy(update={"tables": tables})
    apply(connection, policy_of(school()), config, now=None)
    with acting(connection, "u1", "o1"):
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.exec_driver_sql(
            "EXPLAIN SELECT id FROM lessons WHERE organization_id = 'o1'"
        )
        assert any("Index Cond" in row[0] for row in plan)
