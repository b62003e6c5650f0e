"""Policies, facts and rows for row-level security: those of filters, and more about the actor,
whose values a migration does not know."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from pdp.model import (
    Effect,
    Grant,
    Resource,
    ResourceRef,
    Rule,
    ToUser,
    User,
    UserStatus,
)
from tests.kit.filters.worlds import (
    PERMISSIONS,
    ROLES,
    USERS,
    Case,
    actor_attributes,
    any_field,
    equality,
    list_field,
    maybe,
    number_field,
    order,
    random_case,
    random_grant,
    swapped,
    text_field,
)

_VALUES = ["name", "level", "names", "roots", "nothing", "missing"]


def random_policy(random: Random, rows: list[Resource], above: dict) -> Case:
    """A policy with the facts to begin with."""
    case = random_case(random, rows, above)
    rules = [_actor_rule(random, f"a{index}") for index in range(random.choice([0, 1, 2, 3]))]
    if random.random() < 0.3:
        case.world.rules = rules
    else:
        case.world.rules += rules
    return case


def rule_on_organization_permissions(random: Random) -> Rule:
    """Drawn apart, so that it changes nothing else of a world."""
    field = random.choice(["'org:lesson:publish'", "'other'", "actor.attributes.name", "1"])
    of_list = "actor.organization_permissions"
    condition = random.choice(
        [
            f"{field} in {of_list}",
            f"!({field} in {of_list})",
            f"size({of_list}) {random.choice(['== 0', '> 0'])}",
            f"{of_list}.exists(p, p == {text_field(random)})",
            f"{of_list}.all(p, p.startsWith('org:') && {text_field(random)} != 'u1')",
            f"{text_field(random)} in {of_list}",
        ]
    )
    effect = Effect.DENY if random.random() < 0.3 else Effect.ALLOW
    return Rule("permissions", random.choice(ROLES), effect, "*", condition)


def other_facts(
    random: Random, case: Case, rows: list[Resource], above: dict[ResourceRef, Resource]
) -> Case:
    """The same policy with other rows, users, memberships, grants and sessions."""
    other = random_case(random, rows, above)
    grants = [random_grant(random, f"g{index}") for index in range(random.randint(1, 6))]
    allowing = [rule.role for rule in case.world.rules if rule.effect is Effect.ALLOW]
    if allowing and random.random() < 0.6:
        # One role alone: where many are held, some deny rule often denies every row.
        role = random.choice(allowing)
        grants = [Grant("one", role, ToUser("u1")), *grants[: random.choice([0, 0, 0, 2])]]
    users = [
        User(
            user,
            status=UserStatus.DISABLED if random.random() < 0.07 else UserStatus.ACTIVE,
            attributes=actor_attributes(random) | maybe(random, "nothing", [None, "u1"]),
        )
        for user in USERS
        if random.random() < 0.97
    ]
    world = replace(
        case.world,
        grants=grants,
        users=users,
        memberships={
            of: role for of, role in other.world.memberships.items() if random.random() < 0.9
        },
        revoked={("s1", "u1")} if random.random() < 0.07 else {("s1", "u2"), ("s2", "u1")},
        resources=dict(above),
    )
    return replace(case, world=world, rows=rows, token=other.token)


def _actor_rule(random: Random, rule_id: str) -> Rule:
    atoms = [random.choice(_ATOMS)(random) for _ in range(random.choice([1, 1, 2]))]
    condition = random.choice([" && ", " || "]).join(f"({one})" for one in atoms)
    if random.random() < 0.4:
        condition = f"!({condition})"
    effect = Effect.DENY if random.random() < 0.2 else Effect.ALLOW
    pattern = random.choice([*PERMISSIONS, "lesson:*", "*"])
    return Rule(rule_id, random.choice(ROLES), effect, pattern, condition)


def _value(random: Random) -> str:
    return "actor.attributes." + random.choice(_VALUES)


def _constant(random: Random) -> str:
    return random.choice(["'u1'", "'a%b'", "1", "1.0", "2.5", "null", "true", "''"])


def _tests(random: Random) -> str:
    return random.choice(["startsWith", "endsWith", "contains"])


_PIECES = ["'a_b'", "'_'", "'%'", "'d'", "'b'", "'a'", "'u'"]
_ATOMS: list[Callable[[Random], Any]] = [
    lambda r: f"{text_field(r)}.{_tests(r)}({r.choice(_PIECES)})",
    lambda r: f"{text_field(r)}.{_tests(r)}({r.choice(_PIECES)})",
    lambda r: f"{text_field(r)}.{_tests(r)}({r.choice(_PIECES)})",
    lambda r: swapped(r, number_field(r), order(r), r.choice(["1", "1.5", "2.5", "-1.0"])),
    lambda r: swapped(r, text_field(r), order(r), r.choice(["'Draft'", "'z'", "'a_b'"])),
    lambda r: swapped(r, number_field(r), equality(r), "actor.attributes.level"),
    lambda r: swapped(r, number_field(r), order(r), "actor.attributes.level"),
    lambda r: swapped(r, text_field(r), order(r), "actor.attributes.name"),
    lambda r: swapped(r, any_field(r), equality(r), _value(r)),
    lambda r: swapped(r, any_field(r), order(r), _value(r)),
    lambda r: swapped(r, _value(r), equality(r), _constant(r)),
    lambda r: swapped(r, _value(r), order(r), _constant(r)),
    lambda r: f"{_value(r)} {r.choice([equality(r), order(r)])} {_value(r)}",
    lambda r: f"has({_value(r)})",
    lambda r: f"{_value(r)} in {list_field(r)}",
    lambda r: f"{text_field(r)} in actor.attributes.{r.choice(['names', 'roots', 'name'])}",
    lambda r: f"{number_field(r)} in actor.attributes.{r.choice(['names', 'roots', 'level'])}",
    lambda r: f"{_value(r)} in actor.attributes.{r.choice(['names', 'roots'])}",
    lambda r: f"{_value(r)} in ['u1', 1, 2.5, null]",
    lambda r: f"{_value(r)} in []",
    lambda r: f"actor.attributes.names.exists(n, n {equality(r)} {text_field(r)})",
    lambda r: f"actor.attributes.names.all(n, n {equality(r)} {text_field(r)})",
    lambda r: f"actor.attributes.names.all(n, n {equality(r)} {number_field(r)})",
    lambda r: f"actor.attributes.roots.exists(k, k {r.choice(['==', '!=', '<'])} 'u1')",
    lambda r: f"actor.attributes.roots.all(k, has(k.path) && k.path {equality(r)} {text_field(r)})",
    lambda r: f"actor.attributes.names.exists(n, n in {list_field(r)})",
    lambda r: f"{_value(r)}.exists(n, n == 'z')",
    lambda r: f"size({_value(r)}) {r.choice(['== 0', '> 0'])}",
    lambda r: f"{_value(r)}.{_tests(r)}({r.choice(['u', 'a%', '_', 'Z', ''])!r})",
    lambda r: f"actor.organization_role {equality(r)} 'org:admin'",
    lambda r: f"actor.session {equality(r)} 's1'",
    lambda r: f"actor.id {r.choice([equality(r), order(r)])} {text_field(r)}",
    lambda r: f"resource.organization {equality(r)} actor.organization",
    lambda r: f"{text_field(r)} {equality(r)} actor.organization",
    lambda r: f"(has({_value(r)}) ? {_value(r)} : 'u1') == {text_field(r)}",
    lambda r: swapped(r, "now", order(r), "timestamp('1970-01-01T00:01:40Z')"),
    lambda r: f"now {equality(r)} timestamp('1970-01-01T00:01:40Z')",
    lambda r: "now >= timestamp('1970-01-01T00:00:00Z') + duration('99s')",
]
