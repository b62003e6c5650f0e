"""Replicas that begin together, with nothing in memory, do not overrun the database."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event

from pdp.database.engine import open_engine
from pdp.facts import Replica, Store
from pdp.facts.replica.reading import READERS_MAX
from pdp.model import User
from tests.kit.facts.writing import NEVER, write
from tests.kit.waiting import eventually, run

REPLICAS = 4
THREADS = 6
USERS = [f"user_{number}" for number in range(20)]


def test_replicas_that_know_nothing_read_each_fact_about_once(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F20, F21: many ask each replica for the same users at once; then all caches are emptied."""
    monkeypatch.setattr("pdp.facts.store.transaction.CHANGES_PER_REVISION_MAX", 100)
    writer = open_engine(postgresql_url)
    write(Store(writer), *map(User, USERS))
    engines = [open_engine(postgresql_url) for _ in range(REPLICAS)]
    read: Counter[int] = Counter()
    opened: Counter[int] = Counter()
    for number, engine in enumerate(engines):
        watch_over(engine, lambda n=number: read.update([n]), lambda n=number: opened.update([n]))
    replicas = [
        Replica(Store(engine), staleness_seconds_max=60, poll_seconds=NEVER) for engine in engines
    ]
    for replica in replicas:
        replica.start()
    try:
        eventually(lambda: all(replica.ready() for replica in replicas))
        for turn in range(2):
            if turn:
                revision = write(Store(writer), *(User(f"new_{n}") for n in range(101)))
                for replica in replicas:
                    replica.poke()
                eventually(lambda at=revision: all(replica.revision == at for replica in replicas))
            read.clear()
            ask_all(replicas)
            assert len(USERS) <= min(read.values())
            assert max(read.values()) <= len(USERS) * 1.2
        # The connections of the readers, of the follower, and of the setup.
        assert max(opened.values()) <= READERS_MAX + 2
    finally:
        for replica in replicas:
            replica.stop()
        for engine in (*engines, writer):
            engine.dispose()


def watch_over(engine, on_read: Callable[[], None], on_open: Callable[[], None]) -> None:
    def executed(_, __, statement: str, *___: object) -> None:
        if "FROM users" in statement:
            on_read()

    event.listen(engine, "before_cursor_execute", executed)
    event.listen(engine, "connect", lambda *_: on_open())


def ask_all(replicas: list[Replica]) -> None:
    """Every thread asks for every user, all of them at the same time and in the same order."""
    together = threading.Barrier(REPLICAS * THREADS)

    def ask(replica: Replica) -> int:
        together.wait(30)
        return sum(run(replica.view(user, None, [])).user is not None for user in USERS)

    with ThreadPoolExecutor(REPLICAS * THREADS) as pool:
        asking = [pool.submit(ask, replica) for replica in replicas for _ in range(THREADS)]
        assert {view.result(60) for view in asking} == {len(USERS)}
