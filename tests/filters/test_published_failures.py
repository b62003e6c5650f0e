"""Failures that other systems have published, each against Check.

Most are of adapters for query plans (github.com/cerbos/query-plan-adapters, issues 256, 257, 260,
302, 308 and 491), some of object listings (openfga 524 and 576, casl 170, 1068 and 1073).
"""

from collections import Counter
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

from pdp.model import Resource, ResourceRef
from tests.kit.filters.oracle import _differences
from tests.kit.filters.published import ABOVE, CASES, case_of, lessons
from tests.kit.filters.tables import Lesson, put
from tests.kit.filters.worlds import Case, plan_of, random_case, random_rows, received, row_of


def agree(connections: list[Connection], case: Case) -> set[str]:
    """The rows that the filter takes, which are those that Check allows, everywhere."""
    for connection in connections:
        put(connection, case.rows, ABOVE)
    assert not list(_differences(0, case, connections, Counter()))
    plan = plan_of(case)
    assert not plan.unsupported
    return {row.id for row in case.rows if evaluate(plan.filter, row_of(case, row))}


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
