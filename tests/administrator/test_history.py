"""The policy of any revision since the records began, from the records."""

import random
from typing import Any

import pytest
from sqlalchemy import Engine, text

from pdp.administration_records import Author, Source
from pdp.administrator import Administrator
from pdp.administrator.history import policy_at, policy_changes
from pdp.database.engine import begin_write
from pdp.document import render_document
from pdp.errors import PdpError
from pdp.facts import Store
from pdp.model import (
    Effect,
    Grant,
    InOrganization,
    Membership,
    Permission,
    ResourceType,
    Role,
    Rule,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
)
from tests.kit import soak

SECTIONS = ("permissions", "resource_types", "roles", "grants", "routes")


def document(chance: random.Random) -> str:
    permissions = [f"course:p{n}" for n in range(chance.randint(1, 4))]
    roles = [f"R{n}" for n in range(chance.randint(1, 4))]
    lines = ["version: 1", f"permissions: [{', '.join(permissions)}]", "roles:"]
    for index, role in enumerate(roles):
        inherits = f"inherits: [{chance.choice(roles[:index])}], " if index else ""
        lines.append(f"  {role}: {{{inherits}allow: [{chance.choice(permissions)}]}}")
    lines.append("grants:")
    lines += [f"  - {{role: {chance.choice(roles)}, user: u{n}}}" for n in range(3)]
    lines.append(f"routes: {{GET /a: {chance.choice(permissions)}}}")
    return "\n".join(lines)


def change(administrator: Administrator, chance: random.Random) -> None:
    """One random write, which may be refused."""
    name = f"R{chance.randint(0, 4)}"
    subject = chance.choice([ToUser("u1"), ToOrganizationRole("org:member")])
    entities: list[Any] = [
        Permission(f"course:p{chance.randint(0, 4)}", chance.choice(["", "x", "é\u202e"])),
        ResourceType("course", chance.choice(list(Tenancy)), chance.random() < 0.5),
        Role(name, "x", tuple({f"R{chance.randint(0, 4)}"} - {name})),
        Rule("r1", name, chance.choice(list(Effect)), "course:*", 'context.a == "b"'),
        Grant("g1", name, subject, InOrganization("org_1"), expires_at=1e9 + 0.1),
        User("u1", attributes={"n": chance.random()}),
        Membership("org_1", "u1", "org:member"),
    ]
    entity = chance.choice(entities)
    write = chance.choice([administrator.create, administrator.update])
    try:
        match chance.randint(0, 3):
            case 0:
                administrator.apply(document(chance))
            case 1:
                administrator.delete(Role, (name,))
            case _:
                write(entity)
    except PdpError:
        pass


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(soak.count(20, sample=2)))
def test_the_policy_of_each_revision_is_what_an_export_was_then(engine: Engine, seed: int) -> None:
    """The oracle: the export at that time. Facts between do not matter."""
    store, chance = Store(engine), random.Random(seed)
    administrator = Administrator(store, lambda _: None)
    exports = dict([administrator.export(SECTIONS)[::-1]])
    for _ in range(25):
        change(administrator, chance)
        exported, revision = administrator.export(SECTIONS)
        assert exports.setdefault(revision, exported) == exported
    assert len(exports) > 5
    for revision, exported in exports.items():
        assert render_document(policy_at(store, revision)) == exported


def test_a_revision_whose_later_changes_are_not_all_recorded_is_refused(engine: Engine) -> None:
    store = Store(engine)
    administrator = Administrator(store, lambda _: None)
    for number in range(4):
        administrator.create(Permission(f"course:p{number}"))
    assert len(policy_at(store, 2).permissions or ()) == 2
    with begin_write(engine) as connection:
        connection.execute(text("DELETE FROM administration_records WHERE revision = 3"))
    assert len(policy_at(store, 3).permissions or ()) == 3
    with pytest.raises(PdpError, match="1 later revisions have no records"):
        policy_at(store, 2)
    for unknown in (5, 10**30):
        with pytest.raises(PdpError, match="does not exist: the newest is 4"):
            policy_at(store, unknown)


def test_the_changes_between_revisions_name_their_authors(engine: Engine) -> None:
    store = Store(engine)
    administrator = Administrator(store, lambda _: None)
    for number, name in enumerate(("a", "b", "c")):
        author = Author(Source.API, name, f"step {number}")
        if number:
            administrator.update(Permission("course:view", name), author)
        else:
            administrator.create(Permission("course:view", name), author)
    [(entity, records)] = policy_changes(store, 1, 3).items()
    assert entity == ("permission", ("course:view",))
    assert [(r.name, r.reason, r.revision) for r in records] == [
        ("b", "step 1", 2),
        ("c", "step 2", 3),
    ]
