"""Rows and conditions of failures that other systems have published, with what is right."""

from collections.abc import Sequence
from random import Random

import pytest

from pdp.model import EVERYWHERE, Effect, Grant, Resource, ResourceRef, Rule, ToUser
from tests.kit.filters.worlds import Case, random_case

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
