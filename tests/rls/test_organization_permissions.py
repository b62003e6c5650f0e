"""PostgreSQL reads the permissions of Clerk's organization roles as the decision point does."""

import json
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, delete, insert, text

from pdp.facts import Store
from pdp.facts.store import tables
from pdp.facts.store.organization_roles import read_organization_permissions
from pdp.model import Actor
from tests.kit import soak
from tests.kit.rls.database import act, clerk_records
from tests.kit.rls.school import put_school

ROLE = "org:member"
STATES = soak.count(2_000, sample=40)


def random_objects(random: Random) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Roles and permissions that were renamed, deleted, or have the key of another."""
    keys = ["org:a", "org:b", "org:c", "Z", ""]
    ids = ["perm_1", "perm_2", "perm_3"]
    objects: list[tuple[str, str, str, dict[str, Any]]] = [
        ("user", "user_1", "active", {"key": ROLE})
    ]
    for id_ in ids:
        if random.random() < 0.6:
            status = random.choice(["active", "active", "deleted"])
            objects.append(("permission", id_, status, {"key": random.choice(keys)}))
    for number in range(random.randint(0, 3)):
        some = [[id_, random.choice(keys)] for id_ in random.choices(ids, k=random.randint(0, 4))]
        content = {"key": random.choice([ROLE, ROLE, "org:admin"]), "permissions": some}
        status = random.choice(["active", "active", "active", "deleted"])
        objects.append(("role", f"role_{number}", status, content))
    return objects


@pytest.mark.soak
def test_the_database_reads_the_permissions_that_the_decision_point_reads(
    connection: Connection, engine: Engine
) -> None:
    put_school(connection)
    random, met = Random(1), set[str]()
    for _ in range(STATES):
        connection.execute(delete(tables.clerk_objects))
        objects = clerk_records(random_objects(random))
        connection.execute(insert(tables.clerk_objects), objects)
        connection.commit()
        with Store(engine).read() as reader:
            expected = read_organization_permissions(reader).get(ROLE)
        assert _found(connection, Actor("u1", "s1", "o1")) == expected
        met.add("unknown" if expected is None else "some" if expected else "none")
        assert _found(connection, Actor("u1", "s1")) == ()  # in no organization
        assert _found(connection, Actor("u9", "s1", "o1")) is None
    assert met == {"unknown", "some", "none"}
    connection.execute(delete(tables.clerk_objects))
    connection.commit()


def _found(connection: Connection, actor: Actor) -> tuple[str, ...] | None:
    act(connection, actor, "pdp_rls")
    found = connection.execute(
        text("SELECT pdp_rls.actor_organization_permissions()::text")
    ).scalar_one()
    connection.rollback()
    return None if found is None else tuple(sorted(json.loads(found)))
