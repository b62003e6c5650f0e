"""Failures that other systems have published, each against Check.

Most are of adapters for query plans (github.com/cerbos/query-plan-adapters, issues 256, 257, 260,
302, 308 and 491), some of object listings (openfga 524 and 576, casl 170, 1068 and 1073).
"""

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from pdp_client.plans import PlanInvalid, plan_from_json
from pdp_client.sqlalchemy import FilterUnsupported, where
from pdp_filters import (
    FALSE,
    TRUE,
    And,
    Compare,
    Kind,
    KindIs,
    OneOf,
    Or,
    complement,
    evaluate,
    walk,
)
from sqlalchemy import Connection

from pdp.model import EVERYWHERE, Effect, Grant, Resource, ResourceRef, Rule, ToUser
from tests.kit.filters.oracle import _differences
from tests.kit.filters.tables import Lesson, put
from tests.kit.filters.worlds import Case, plan_of, random_case, random_rows, received, row_of

ABOVE = {
    ResourceRef("catalog", "k1"): Resource("catalog", "k1", "o1"),
    ResourceRef("course", "c1"): Resource("course", "c1", "o1", ResourceRef("catalog", "k1")),
}


def lessons(*attributes: dict) -> list[Resource]:
    plain = {"title": None, "tags": [], "members": []}
    return [
        Resource("lesson", f"l{number}", "o1", attributes={**plain, **one})
        for number, one in enumerate(attributes)
    ]


def case_of(rows: Sequence[Resource], allow: str, deny: str | None = None) -> Case:
    case = random_case(Random(0), list(rows), ABOVE)
    case.world.rules = [Rule("allow", "A", Effect.ALLOW, "*", allow)]
    if deny is not None:
        case.world.rules.append(Rule("deny", "A", Effect.DENY, "*", deny))
    case.world.grants = [Grant("g", "A", ToUser("u1"), EVERYWHERE)]
    case.world.resource_types = []
    case.world.memberships = {(one, "u1"): "org:member" for one in ("o1", "o2")}
    return case


def agree(connections: list[Connection], case: Case) -> set[str]:
    """The rows that the filter takes, which are those that Check allows, everywhere."""
    for connection in connections:
        put(connection, case.rows, ABOVE)
    assert not list(_differences(0, case, connections, Counter()))
    plan = plan_of(case)
    assert not plan.unsupported
    return {row.id for row in case.rows if evaluate(plan.filter, row_of(case, row))}


LOOP = "a loop other than exists() and all()"
NUMBERS = [{"level": 0.0}, {"level": 1.0}, {"level": 2.5}, {}]
TEXTS = [
    {"owner": "draft"},
    {"owner": "Draft"},
    {"owner": "a_b"},
    {"owner": "axb"},
    {"owner": "a%"},
    {},
]


CASES = [
    pytest.param(NUMBERS, "1 < resource.attributes.level", {"l2"}, id="value-first comparison"),
    pytest.param(NUMBERS, "1 >= resource.attributes.level", {"l0", "l1"}, id="value-first, equal"),
    pytest.param(NUMBERS, "!(resource.attributes.level > 1)", {"l0", "l1"}, id="NULL under NOT"),
    pytest.param(
        NUMBERS,
        "!(resource.attributes.level > 1 || resource.attributes.level < 1)",
        {"l1"},
        id="NULL under NOT of OR",
    ),
    pytest.param(
        NUMBERS,
        "!(resource.attributes.level == 'x')",
        {"l0", "l1", "l2"},
        id="NOT of other kinds",
    ),
    pytest.param(NUMBERS, "has(resource.attributes.level)", {"l0", "l1", "l2"}, id="has() alone"),
    pytest.param(
        NUMBERS,
        "has(resource.attributes.level) && resource.attributes.level < 1",
        {"l0"},
        id="has() composed",
    ),
    pytest.param(NUMBERS, "!has(resource.attributes.level)", {"l3"}, id="not has()"),
    pytest.param(
        NUMBERS, "resource.attributes.level == null", set(), id="an absent value is not null"
    ),
    pytest.param(NUMBERS, "resource.attributes.level in []", set(), id="empty IN"),
    pytest.param(
        NUMBERS,
        "!(resource.attributes.level in [])",
        {"l0", "l1", "l2"},
        id="NOT of an empty IN",
    ),
    pytest.param(
        [{"title": "x"}, {"title": None}],
        "resource.attributes.title != 'x'",
        {"l1"},
        id="null is not equal to a text",
    ),
    pytest.param(
        [{"title": "x"}, {"title": None}],
        "!(resource.attributes.title in ['x', 'y'])",
        {"l1"},
        id="null is in no list of texts",
    ),
    pytest.param(TEXTS, "resource.attributes.owner.startsWith('dr')", {"l0"}, id="LIKE folds case"),
    pytest.param(TEXTS, "resource.attributes.owner.contains('_')", {"l2"}, id="_ in LIKE"),
    pytest.param(TEXTS, "resource.attributes.owner.endsWith('%')", {"l4"}, id="% in LIKE"),
    pytest.param(TEXTS, "resource.attributes.owner == 'DRAFT'", set(), id="folded equality"),
    pytest.param(
        [{"editor": "Z"}, {"editor": "a"}, {"editor": "é"}, {}],
        "resource.attributes.editor < 'a'",
        {"l0"},
        id="order by a collation",
    ),
    pytest.param(
        [{"owner": "a", "editor": "a"}, {"owner": "a", "editor": "b"}, {"owner": "a"}, {}],
        "resource.attributes.owner == resource.attributes.editor",
        {"l0"},
        id="field to field",
    ),
    pytest.param(
        [{"owner": "a", "editor": "a"}, {"owner": "a", "editor": "b"}, {"owner": "a"}, {}],
        "resource.attributes.owner != resource.attributes.editor",
        {"l1"},
        id="field to field, not equal",
    ),
    pytest.param(
        [{"tags": ["x", "x", "y"]}, {"tags": []}],
        "resource.attributes.tags.exists(t, t == 'x')",
        {"l0"},
        id="duplicates by a join",
    ),
    pytest.param(
        [{"tags": []}, {"tags": ["x"]}, {"tags": ["x", "y"]}],
        "resource.attributes.tags.all(t, t == 'x')",
        {"l0", "l1"},
        id="all() of an empty list",
    ),
    pytest.param(
        [{"unit": {"tags": []}}, {"unit": {"tags": ["x"]}}, {}],
        "resource.attributes.unit.tags.all(t, t == 'x')",
        {"l0", "l1"},
        id="absent parent under all()",
    ),
    pytest.param(
        [{"unit": {"tags": []}}, {"unit": {"tags": ["x"]}}, {}],
        "!resource.attributes.unit.tags.exists(t, t == 'x')",
        {"l0"},
        id="absent parent under !exists()",
    ),
    pytest.param(
        [{"unit": {"tags": []}}, {"unit": {"tags": ["x"]}}, {}],
        "size(resource.attributes.unit.tags) == 0",
        {"l0"},
        id="absent parent under size() == 0",
    ),
    pytest.param(
        [{"members": [{"role": "editor"}]}, {"members": [{"user": "u1"}, {}]}, {}],
        "resource.attributes.members.all(m, m.user == actor.id)",
        {"l2"},
        id="an absent value in an element",
    ),
    pytest.param(
        [
            {"members": [{"user": "u1", "role": "viewer"}, {"user": "u2", "role": "editor"}]},
            {"members": [{"user": "u1", "role": "editor"}]},
        ],
        "resource.attributes.members.exists(m, m.user == actor.id && m.role == 'editor')",
        {"l1"},
        id="two conditions on one element",
    ),
    pytest.param(
        [{"open": True}, {"open": False}, {}, {"level": 1.0}],
        "(resource.attributes.open && true) || resource.attributes.level == 1",
        {"l0", "l3"},
        id="true and 1 are two values",
    ),
]
"""Rows, a condition, and the rows for which it is true."""


@pytest.mark.parametrize(("rows", "condition", "taken"), CASES)
def test_a_filter_is_equal_to_check(connections, rows, condition, taken):
    assert agree(connections, case_of(lessons(*rows), condition)) == taken


def test_a_deny_rule_that_fails_denies_the_row(connections):
    rows = lessons({"open": True}, {"open": False}, {})
    assert agree(connections, case_of(rows, "true", "resource.attributes.open == true")) == {"l1"}


def test_deny_rules_alone_take_nothing(connections):
    case = case_of(lessons({}, {}), "false", "resource.id == 'l0'")
    assert agree(connections, case) == set()


def test_a_row_of_another_parent_organization_is_foreign(connections):
    rows = [
        Resource("lesson", "l0", None, ResourceRef("course", "c1"), lessons({})[0].attributes),
        Resource("lesson", "l1", "o2", ResourceRef("course", "c1"), lessons({})[0].attributes),
        Resource("lesson", "l2", None, None, lessons({})[0].attributes),
    ]
    case = case_of(rows, "resource.organization == actor.organization")
    case.token = case.token.__class__(
        **{
            **{one: getattr(case.token, one) for one in case.token.__slots__},
            "actor": case.token.actor.__class__("u1", "s1", "o1"),
        }
    )
    assert agree(connections, case) == {"l0"}


def test_a_plan_of_a_later_version_is_refused():
    with pytest.raises(PlanInvalid, match="version 2"):
        plan_from_json('{"version": 2, "outcome": "PLAN_OUTCOME_EVERYTHING"}')


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"version": 1}',
        '{"version": 1, "outcome": "PLAN_OUTCOME_FILTER"}',
        '{"version": 1, "outcome": "PLAN_OUTCOME_FILTER", "filter": {}}',
        '{"version": 1, "outcome": "PLAN_OUTCOME_EVERYTHING", "filter": {"any": {}}}',
        '{"version": 1, "outcome": "PLAN_OUTCOME_FILTER", "filter": {"all": {"nodes": [{}]}}}',
        '{"version": 1, "outcome": "PLAN_OUTCOME_FILTER", "filter": {"later": {}}}',
        '{"version": 1, "outcome": "PLAN_OUTCOME_FILTER", "filter": {"some": {"body": {}}}}',
        '{"version": 1, "outcome": "PLAN_OUTCOME_FILTER", "filter": {"compare": {"left": {}}}}',
    ],
)
def test_a_plan_that_is_not_understood_in_full_is_refused(text):
    with pytest.raises(PlanInvalid):
        plan_from_json(text)


def test_an_attribute_that_is_not_described_is_refused_by_name():
    case = case_of(lessons({}), "resource.attributes.secret == 1")
    with pytest.raises(FilterUnsupported, match=r"lesson\.secret is not described"):
        where(received(plan_of(case), case), Lesson)


@pytest.mark.parametrize(
    ("condition", "operator"),
    [
        ("resource.attributes.level + 1.0 > 2.0", "+"),
        ("resource.attributes.owner.matches('a')", "matches"),
        (
            "resource.attributes.tags.exists_one(t, t == 'x')",
            "a loop other than exists() and all()",
        ),
        ("resource.attributes.tags[0] == 'x'", "[]"),
        ("size(resource.attributes.tags) > 1", "size"),
        ("timestamp(resource.attributes.owner) < now", "timestamp"),
        ("resource.attributes == {}", "resource.attributes"),
        ("resource.attributes.owner == ['x']", "=="),
        ("'abc'.startsWith(resource.attributes.owner)", "startsWith"),
    ],
)
def test_what_no_filter_expresses_is_named(condition, operator):
    plan = plan_of(case_of(lessons({}), condition))
    assert [(one.rule_id, one.operator) for one in plan.unsupported] == [("allow", operator)]


def test_what_does_not_matter_is_not_refused():
    for condition in (
        "false && resource.attributes.level + 1.0 > 2.0",
        "true || resource.attributes.level + 1.0 > 2.0",
    ):
        plan = plan_of(case_of(lessons({}), condition))
        assert not plan.unsupported
        assert plan.filter in (TRUE, FALSE)


def test_a_complement_takes_exactly_the_other_rows():
    """Adapters whose target has no total `not` rely on it."""
    compared = 0
    for seed in range(300):
        random = Random(seed)
        rows, above = random_rows(random)
        case = random_case(random, rows, above)
        plan = plan_of(case)
        for node in walk(plan.filter):
            if isinstance(node, And | Or | Compare | KindIs | OneOf) and not plan.unsupported:
                try:
                    opposite = complement(node)
                    for row in (row_of(case, row) for row in rows):
                        assert evaluate(opposite, row) is not evaluate(node, row)
                except (IndexError, ValueError):  # a field of an element; Stored
                    continue
                compared += 1
    assert compared > 500


def test_null_and_absent_are_two_kinds():
    assert Kind.NULL is not Kind.ABSENT
    rows = lessons({"title": None}, {"title": "x"})
    case = case_of(rows, "has(resource.attributes.title) && resource.attributes.title == null")
    plan = plan_of(case)
    assert [evaluate(plan.filter, row_of(case, row)) for row in rows] == [True, False]
