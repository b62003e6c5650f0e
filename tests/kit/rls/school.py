"""A small school that the tests share."""

from collections.abc import Sequence

from pdp_client.rls import Actor
from sqlalchemy import Connection

from pdp.decision.policy import Policy
from pdp.model import (
    EVERYWHERE,
    Effect,
    Grant,
    Permission,
    Resource,
    Role,
    Rule,
    ToOrganizationRole,
    User,
)
from tests.kit.decision.engine import policy_of
from tests.kit.decision.reference import World
from tests.kit.filters.tables import put
from tests.kit.rls.database import LESSONS, apply, put_facts

IVAN = Actor("u1", "s1", "o1")
MARIA = Actor("u2", "s2", "o2")


def lesson(number: int, organization: str | None, **attributes: object) -> Resource:
    plain = {"title": None, "tags": [], "members": []}
    return Resource("lesson", f"l{number}", organization, attributes=plain | attributes)


SCHOOL = [lesson(1, "o1"), lesson(2, "o1"), lesson(3, "o2"), lesson(5, None)]
"""Two lessons of one organization, one of another, and one of none."""
FREE = [Rule("allow", "A", Effect.ALLOW, "*", "")]


def school(rules: Sequence[Rule] = FREE, permissions: Sequence[str] = ()) -> World:
    """Every member has the role A."""
    return World(
        permissions=[Permission(name) for name in ("lesson:view", "lesson:edit", *permissions)],
        roles=[Role("A")],
        rules=list(rules),
        grants=[Grant("g", "A", ToOrganizationRole("org:member"), EVERYWHERE)],
        users=[User("u1"), User("u2")],
        memberships={("o1", "u1"): "org:member", ("o2", "u2"): "org:member"},
    )


def put_school(
    connection: Connection, world: World | None = None, rows: Sequence[Resource] = SCHOOL
) -> Policy:
    """Puts rows and facts, and applies the migration."""
    world = world or school()
    connection.rollback()
    put(connection, list(rows), world.resources)
    put_facts(connection, world)
    connection.commit()
    policy = policy_of(world)
    apply(connection, policy, LESSONS, now=None)
    return policy
