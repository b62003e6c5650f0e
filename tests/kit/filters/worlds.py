"""Random policies, actors and rows for filters: small, nullable, and full of odd values.

A row is a lesson. It may be in a course, which may be in a catalog; both are stored in the
decision point, as are some of the lessons. The schema is typed, so that the same rows can be put
into tables (`tables.py`); `wild` attributes have any type and are for the core alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToJson
from pdp_client.plans import Plan as ClientPlan
from pdp_client.plans import plan_from_json
from pdp_filters import Level, Row

from pdp.decision import decide
from pdp.decision.partial import Plan, plan_for
from pdp.model import (
    EVERYWHERE,
    Actor,
    Decision,
    Effect,
    Grant,
    InOrganization,
    OnResource,
    Permission,
    Question,
    Resource,
    ResourceRef,
    ResourceType,
    Role,
    Rule,
    Scope,
    Subject,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
    VerifiedToken,
)
from pdp.wire.convert.filters import message_of_plan
from tests.kit.decision.engine import policy_of, principal_of, resource_facts
from tests.kit.decision.reference import World

T = TypeVar("T")

ROLES = ["A", "B", "C"]
USERS = ["u1", "u2"]
ORGANIZATIONS = ["o1", "o2"]
ORGANIZATION_ROLES = ["org:admin", "org:member"]
PERMISSIONS = ["lesson:view", "lesson:edit"]
TEXTS = ["u1", "u2", "draft", "Draft", "a%b", "a_b", "axb", "a\\b", "", "é", "z", "Z", "ß", "a'b"]
NUMBERS = [0.0, 1.0, 2.5, 5.0, -1.0]
INTEGERS = [0.0, 1.0, 2.0, 5.0, -1.0]
COURSES = [ResourceRef("course", one) for one in ("c1", "c2", "c3")]
CATALOGS = [ResourceRef("catalog", one) for one in ("k1", "k2")]
LESSONS = [f"l{index}" for index in range(8)]
NOW = 100.0


@dataclass
class Case:
    """One actor's question about every row."""

    world: World
    token: VerifiedToken
    permission: str
    context: dict[str, Any]
    rows: list[Resource]
    now: float = NOW
    superset: bool = field(default=False)


def random_case(random: Random, rows: list[Resource], above: dict[ResourceRef, Resource]) -> Case:
    """Half of the worlds are about one condition, the others about roles, grants and tenants."""
    rules = [random_rule(random, f"r{index}") for index in range(random.randint(3, 7))]
    grants = [random_grant(random, f"g{index}") for index in range(random.randint(3, 8))]
    if random.random() < 0.5:
        rules = [Rule("one", "A", Effect.ALLOW, "*", boolean(random, random.choice([0, 0, 1])))]
        grants = [Grant("one", "A", ToUser("u1"))]
    world = World(
        permissions=[Permission(name) for name in PERMISSIONS],
        roles=[
            Role(name, inherits=tuple(one for one in ROLES if random.random() < 0.2))
            for name in ROLES
        ],
        rules=rules,
        grants=grants,
        users=[User(user, attributes=actor_attributes(random)) for user in USERS],
        memberships={
            (organization, user): random.choice(ORGANIZATION_ROLES)
            for organization in ORGANIZATIONS
            for user in USERS
            if random.random() < 0.95
        },
        organization_permissions={"org:admin": ("org:lesson:publish",)},
        resources=dict(above),
        not_stored=set(),
        resource_types=[
            ResourceType(name, random.choice(list(Tenancy)))
            for name in ("lesson", "course")
            if random.random() < 0.4
        ],
    )
    token = VerifiedToken(
        Actor("u1", "s1", random.choice([None, "o1", "o1", "o1", "o2"])),
        issuer="https://issuer",
        key_id="key",
        expires_at=1_000.0,
        claims={},
        claimed_permissions=random.choice([(), ("lesson:edit",)]),
        second_factor_minutes=random.choice([None, 5.0, 20.0]),
    )
    context = {"place": random.choice(["office", "home"])} if random.random() < 0.7 else {}
    return Case(world, token, random.choice(PERMISSIONS), context, rows)


def actor_attributes(random: Random) -> dict[str, Any]:
    return (
        maybe(random, "name", TEXTS)
        | maybe(random, "names", [[], ["u1"], ["draft", "z", "a%b"], ["u1", 1.0, None, True]])
        | maybe(random, "level", [*NUMBERS, "1"])
        | maybe(random, "roots", [[{"path": "a%"}, {"path": "Z"}], [{}], {"u1": 1.0, "z": 2.0}])
    )


def random_rule(random: Random, rule_id: str) -> Rule:
    effect = random.choice([Effect.ALLOW, Effect.ALLOW, Effect.ALLOW, Effect.DENY])
    condition = boolean(random, random.choice([0, 0, 1, 1, 2, 3]))
    if effect is Effect.DENY and random.random() < 0.5:
        # A deny rule that fails denies, so most would deny every row.
        condition = f"has({any_field(random)}) && ({condition}) && resource.id != 'l1'"
    if effect is Effect.ALLOW and random.random() < 0.1:
        condition = ""
    pattern = random.choice([*PERMISSIONS, *PERMISSIONS, "lesson:*", "*"])
    return Rule(rule_id, random.choice(ROLES), effect, pattern, condition)


def random_grant(random: Random, grant_id: str) -> Grant:
    subject: Subject = random.choice(
        [*[ToUser("u1")] * 4, ToUser("u2"), *map(ToOrganizationRole, ORGANIZATION_ROLES)]
    )
    on = [*COURSES, *CATALOGS, *(ResourceRef("lesson", one) for one in LESSONS[:4])]
    scope: Scope = random.choice(
        [
            *(EVERYWHERE, EVERYWHERE, *map(InOrganization, ORGANIZATIONS)),
            *(OnResource(random.choice(on)), OnResource(random.choice(on))),
        ]
    )
    begins = random.choice([None, None, None, 60.0, 100.0, 100.5])
    ends = random.choice([None, None, None, 100.0, 140.0])
    return Grant(grant_id, random.choice(ROLES), subject, scope, begins, ends)


def random_rows(random: Random) -> tuple[list[Resource], dict[ResourceRef, Resource]]:
    """Lessons, and the courses and catalogs above them."""
    above: dict[ResourceRef, Resource] = {}
    for ref in CATALOGS:
        above[ref] = Resource(ref.type, ref.id, maybe_organization(random))
    for ref in COURSES:
        parent = random.choice([None, *CATALOGS])
        above[ref] = Resource(ref.type, ref.id, maybe_organization(random), parent)
    rows = [
        Resource(
            "lesson",
            one,
            maybe_organization(random),
            random.choice([None, None, *COURSES]),
            typed_attributes(random),
        )
        for one in LESSONS
    ]
    return rows, above


def maybe_organization(random: Random) -> str | None:
    return random.choice([None, "o1", "o1", "o1", "o2"])


def typed_attributes(random: Random) -> dict[str, Any]:
    """As the tables hold them. `tags`, `members` are always there; `title` may be null."""
    members = [
        maybe(random, "user", ["u1", "u2"])
        | maybe(random, "role", ["editor", "viewer"])
        | maybe(random, "rank", INTEGERS)
        for _ in range(random.choice([0, 0, 1, 2]))
    ]
    return (
        maybe(random, "owner", TEXTS)
        | maybe(random, "editor", TEXTS)
        | maybe(random, "level", NUMBERS)
        | maybe(random, "seats", INTEGERS)
        | maybe(random, "open", [True, False])
        | {"title": random.choice([None, None, *TEXTS])}
        | {"tags": random.sample(TEXTS, random.choice([0, 0, 1, 2, 3]))}
        | {"members": members}
        | (maybe(random, "unit", [unit(random)]))
    )


def unit(random: Random) -> dict[str, Any]:
    return (
        maybe(random, "name", TEXTS)
        | maybe(random, "level", NUMBERS)
        | {"tags": random.sample(TEXTS, random.choice([0, 1, 2]))}
    )


def wild_attributes(random: Random) -> dict[str, Any]:
    keys = ["owner", "editor", "level", "seats", "open", "title", "tags", "members", "unit"]
    return {key: wild(random, 2) for key in keys if random.random() < 0.8}


def wild(random: Random, depth: int) -> Any:
    scalars = [None, True, False, *NUMBERS, *TEXTS]
    if depth == 0 or random.random() < 0.5:
        return random.choice(scalars)
    if random.random() < 0.5:
        return [wild(random, depth - 1) for _ in range(random.randint(0, 3))]
    keys = ["user", "role", "rank", "name", "tags", "u1", "draft"]
    return {key: wild(random, depth - 1) for key in random.sample(keys, random.randint(0, 3))}


def maybe(random: Random, key: str, values: list[T]) -> dict[str, T]:
    return {key: random.choice(values)} if random.random() < 0.7 else {}


# --- conditions -----------------------------------------------------------------------------------


def boolean(random: Random, depth: int) -> str:
    """An expression of type bool."""
    if depth == 0:
        return random.choice(ATOMS)(random)
    shape = random.random()
    first, second = boolean(random, depth - 1), boolean(random, depth - 1)
    if shape < 0.35:
        return f"({first}) && ({second})"
    if shape < 0.65:
        return f"({first}) || ({second})"
    if shape < 0.9:
        return f"!({first})"
    if shape < 0.95:
        return f"(({first}) == {random.choice(['true', 'false'])})"
    return f"(({first}) ? ({second}) : ({boolean(random, depth - 1)}))"


def text(random: Random) -> str:
    value = random.choice(TEXTS)
    return '"' + value.replace("\\", "\\\\") + '"'


def number(random: Random) -> str:
    return random.choice(["0", "1", "2.5", "5", "-1.0", "3", "1.5"])


def text_field(random: Random) -> str:
    return "resource.attributes." + random.choice(["owner", "editor", "title", "unit.name"])


def number_field(random: Random) -> str:
    return "resource.attributes." + random.choice(["level", "seats", "unit.level"])


def list_field(random: Random) -> str:
    return "resource.attributes." + random.choice(["tags", "tags", "unit.tags"])


def any_field(random: Random) -> str:
    fields = [text_field, number_field, list_field, lambda _: "resource.attributes.open"]
    return random.choice(fields)(random)


def equality(random: Random) -> str:
    return random.choice(["==", "!="])


def order(random: Random) -> str:
    return random.choice(["<", "<=", ">", ">="])


def known(random: Random) -> str:
    return random.choice(
        [
            "actor.id",
            "actor.attributes.name",
            "actor.attributes.missing",
            "actor.organization",
            "context.place",
            "actor.attributes.level",
            "null",
        ]
    )


def swapped(random: Random, left: str, operator: str, right: str) -> str:
    return f"{left} {operator} {right}" if random.random() < 0.6 else f"{right} {operator} {left}"


def element_test(random: Random) -> str:
    return random.choice(
        [
            lambda: f"m.user {equality(random)} actor.id",
            lambda: random.choice(["m.role == 'editor'", "m.role == 'viewer'"]),
            lambda: swapped(random, "m.rank", order(random), number(random)),
            lambda: "has(m.user)",
            lambda: f"m.user == {text_field(random)}",
            lambda: f"!(m.user == {random.choice(['actor.id', 'actor.attributes.missing'])})",
        ]
    )()


def over_members(random: Random) -> str:
    body = element_test(random)
    if random.random() < 0.5:
        body = f"{body} {random.choice(['&&', '||'])} {element_test(random)}"
    return f"resource.attributes.members.{random.choice(['exists', 'all'])}(m, {body})"


def over_tags(random: Random) -> str:
    body = random.choice(
        [
            lambda: f"t == {text(random)}",
            lambda: f"t != {text_field(random)}",
            lambda: f"t < {text(random)}",
            lambda: f"t.startsWith({text(random)})",
            lambda: f"t in [{text(random)}, actor.id]",
            lambda: "t == 1",
            lambda: "t < 1",
        ]
    )()
    return f"{list_field(random)}.{random.choice(['exists', 'all'])}(t, {body})"


def over_known(random: Random) -> str:
    macro = random.choice(["exists", "all"])
    return random.choice(
        [
            lambda: f"actor.attributes.names.{macro}(n, n == {text_field(random)})",
            lambda: f"actor.attributes.names.{macro}(n, n in {list_field(random)})",
            lambda: f"actor.attributes.roots.{macro}(r, {text_field(random)}.startsWith(r.path))",
            lambda: f"actor.attributes.names.{macro}(n, {text_field(random)} > n)",
        ]
    )()


TESTS = ["startsWith", "endsWith", "contains"]
PIECES = ["'a_b'", "'_'", "'%'", "'D'", "'d'", "'b'", "'a'", "'u'", "''", "'\\\\'"]
ODD = ["1", "true", "'u1'", "false"]
OWNERS = ["actor.organization", "'o1'", "''"]
IDS = ["'l1'", "'l4'"]
ATOMS: list[Callable[[Random], str]] = [
    lambda r: swapped(r, text_field(r), equality(r), text(r)),
    lambda r: swapped(r, text_field(r), equality(r), known(r)),
    lambda r: swapped(r, text_field(r), order(r), text(r)),
    lambda r: swapped(r, number_field(r), order(r), number(r)),
    lambda r: swapped(r, number_field(r), order(r), number(r)),
    lambda r: swapped(r, number_field(r), equality(r), number(r)),
    lambda r: f"{any_field(r)} {equality(r)} null",
    lambda r: f"{any_field(r)} {equality(r)} {r.choice(ODD)}",
    lambda r: f"{any_field(r)} {order(r)} {r.choice(ODD)}",
    lambda r: f"{text_field(r)} {r.choice([equality(r), order(r)])} {text_field(r)}",
    lambda r: f"{number_field(r)} {r.choice([equality(r), order(r)])} {number_field(r)}",
    lambda r: f"{text_field(r)} {r.choice([equality(r), order(r)])} {number_field(r)}",
    lambda r: f"has({any_field(r)})",
    lambda r: f"has({any_field(r)})",
    lambda r: "(resource.attributes.open && true)",
    lambda r: f"{text_field(r)} in [{text(r)}, {text(r)}, null]",
    lambda r: f"{text_field(r)} in []",
    lambda r: f"{text_field(r)} in actor.attributes.names",
    lambda r: f"{number_field(r)} in [1, 2.5, 5]",
    lambda r: f"{text_field(r)} in actor.attributes.roots",
    lambda r: f"{known(r)} in {list_field(r)}",
    lambda r: f"{text_field(r)} in {list_field(r)}",
    lambda r: f"{text(r)} in {list_field(r)}",
    lambda r: f"{known(r)} in [{text_field(r)}, {text_field(r)}]",
    lambda r: f"{text_field(r)}.{r.choice(TESTS)}({text(r)})",
    lambda r: f"{text_field(r)}.{r.choice(TESTS)}({r.choice(PIECES)})",
    lambda r: f"{text_field(r)}.{r.choice(TESTS)}({r.choice(PIECES)})",
    lambda r: f"{number_field(r)}.startsWith({text(r)})",
    over_members,
    over_members,
    over_tags,
    over_tags,
    over_known,
    lambda r: f"size({list_field(r)}) {r.choice(['== 0', '> 0', '!= 0', '>= 1', '< 1', '<= 0'])}",
    lambda r: f"size({text_field(r)}) {r.choice(['== 0', '> 0'])}",
    lambda r: f"resource.organization {equality(r)} {r.choice(OWNERS)}",
    lambda r: f"resource.organization {equality(r)} {r.choice(OWNERS)}",
    lambda r: f"resource.id {r.choice(['==', '!=', '<'])} {r.choice(IDS)}",
    lambda r: f"(has({text_field(r)}) ? {text_field(r)} : {text(r)}) == {text(r)}",
    lambda r: "actor.second_factor_minutes < 10.0",
    lambda r: "context.place == 'office'",
    lambda r: "now < timestamp('1970-01-01T00:02:00Z')",
    lambda r: "'lesson:edit' in actor.claimed_permissions",
    lambda r: "resource.type == 'lesson'",
    lambda r: "1 / 0 == 1",
]


# --- the two answers ------------------------------------------------------------------------------


def plan_of(case: Case) -> Plan:
    """What the core plans."""
    policy = policy_of(case.world)
    principal = principal_of(case.world, policy, case.token, case.now)
    role_grants = [
        grant
        for grant in case.world.grants
        if isinstance(grant.subject, ToOrganizationRole) and isinstance(grant.scope, OnResource)
    ]
    return plan_for(principal, case.permission, "lesson", case.context, role_grants)


def received(plan: Plan, case: Case) -> ClientPlan:
    """The plan as a client reads it, by its JSON form."""
    message = message_of_plan(plan, case.permission, "lesson")
    return plan_from_json(MessageToJson(message))


def decisions_of(case: Case) -> list[Decision]:
    """What Check says of each row."""
    policy = policy_of(case.world)
    principal = principal_of(case.world, policy, case.token, case.now)
    decisions = []
    for row in case.rows:
        chain = [resource_facts(case.world, row)]
        while (parent := chain[-1].resource.parent) is not None:
            chain.append(resource_facts(case.world, case.world.resources[parent]))
        question = Question(case.permission, row, case.context)
        decisions.append(decide(principal, question, tuple(chain)))
    return decisions


def row_of(case: Case, resource: Resource) -> Row:
    chain = [resource]
    while (parent := chain[-1].parent) is not None:
        chain.append(case.world.resources[parent])
    levels = (Level(one.type, one.id, one.organization_id) for one in chain)
    return Row(tuple(levels), resource.attributes)
