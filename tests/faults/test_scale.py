"""The cost of a change does not grow with the facts of a replica: `make bench` loads a million
users, and here the statements and rows that one change takes are counted."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Engine, event

from pdp.database.engine import open_engine
from pdp.facts import Replica, Store
from pdp.model import Effect, Entity, Grant, Permission, Role, Rule, ToUser, User
from tests.kit import soak
from tests.kit.faults.table import FAULTS
from tests.kit.waiting import eventually, run

NEVER = 3_600.0
"""A poll interval: only `poke` has the replica look."""


def world(size: int) -> list[Entity]:
    roles = [Role(f"R{n}") for n in range(size // 10)]
    return [
        Permission("course:view"),
        *roles,
        *(Rule(f"r{n}", role.name, Effect.ALLOW, "course:view") for n, role in enumerate(roles)),
        *(User(f"user_{n}") for n in range(size)),
        *(Grant(f"g{n}", f"R{n % len(roles)}", ToUser(f"user_{n}")) for n in range(size)),
    ]


def cost_of(engine: Engine, user_id: str, changed: Entity) -> Counter[str]:
    """Statements and rows, from the wake of a replica to its answer about a user."""
    store = Store(engine)
    replica = Replica(store, staleness_seconds_max=3_600, poll_seconds=NEVER)
    replica.start()
    cost: Counter[str] = Counter()

    def count(*arguments: Any) -> None:
        cost.update(statements=1, rows=max(0, arguments[1].rowcount))

    try:
        eventually(replica.ready)
        run(replica.view(user_id, None, []))
        with store.write() as transaction:
            transaction.apply_many([changed])
        event.listen(engine, "after_cursor_execute", count)
        replica.poke()
        eventually(lambda: replica.revision == transaction.revision)
        assert run(replica.view(user_id, None, [])).revision == transaction.revision
        event.remove(engine, "after_cursor_execute", count)
    finally:
        replica.stop()
    return cost


@pytest.mark.soak
@pytest.mark.parametrize("kind", [Grant, Rule])
def test_one_change_costs_as_much_among_many_as_among_few(
    postgresql_url: str, kind: type[Entity]
) -> None:
    fault = FAULTS["F33"]
    engine = open_engine(postgresql_url)
    costs = []
    for turn, size in enumerate((40, soak.count(4_000, sample=1_000))):
        with Store(engine).write() as transaction:
            transaction.apply_many(world(size))
        user_id, role = f"user_{turn}", f"R{turn}"
        changed: Entity = Grant(f"new-{turn}", role, ToUser(user_id))
        if kind is Rule:
            changed = Rule(f"new-{turn}", role, Effect.DENY, "course:view")
        costs.append(cost_of(engine, user_id, changed))
    engine.dispose()
    assert costs[0] == costs[1]
    assert costs[0]["rows"] > 0
    assert fault.green
