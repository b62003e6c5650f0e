"""Fifty write at once: revisions are dense, in the order of the commits, and no update is lost.

With the row that every writer raises replaced by a database sequence, which is how it is mostly
done, the same checks find what a replica then misses forever.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import grpc
import psycopg
import pytest
from sqlalchemy import make_url

from pdp.administrator import Administrator
from pdp.database.engine import open_engine
from pdp.errors import DatabaseUnavailable, RevisionChanged
from pdp.facts import Replica, Store
from pdp.facts.store.transaction import Transaction
from pdp.model import User
from pdp.wire.statuses import status_of
from tests.kit import soak
from tests.kit.facts import sequences
from tests.kit.faults.table import FAULTS
from tests.kit.waiting import eventually, run

WRITERS = 50
WRITES = soak.count(6, sample=2)


@pytest.fixture
def stores(postgresql_url: str) -> Iterator[list[Store]]:
    """The stores of four processes: each has connections for 16 requests."""
    with ExitStack() as opened:
        engines = [open_engine(postgresql_url) for _ in range(4)]
        for engine in engines:
            opened.callback(engine.dispose)
        yield [Store(engine) for engine in engines]


@pytest.fixture
def replica(postgresql_url: str) -> Iterator[Replica]:
    engine = open_engine(postgresql_url)
    replica = Replica(Store(engine), staleness_seconds_max=60, poll_seconds=0.02)
    replica.start()
    eventually(replica.ready)
    yield replica
    replica.stop()
    engine.dispose()


def number_by_sequence(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Writers take their numbers without waiting for each other, and announce them at the end."""
    finish = Transaction.finish

    def finish_and_announce(transaction: Transaction) -> bool:
        done = finish(transaction)
        sequences.announce(transaction)
        return done

    with store.write() as transaction:
        sequences.create_sequence(transaction.connection)
        transaction.mark_written()
    monkeypatch.setattr(Transaction, "__init__", sequences.begin)
    monkeypatch.setattr(Transaction, "finish", finish_and_announce)


def missing(store: Store) -> set[int]:
    """The revisions up to the newest of which a reader of this moment sees no change."""
    with store.read() as reader:
        return set(range(1, reader.revision + 1)) - set(reader.changes(0))


def knows(replica: Replica, user_id: str) -> bool:
    return run(replica.view(user_id, None, [])).user is not None


@pytest.mark.parametrize("by_sequence", [False, True], ids=["one row", "control: a sequence"])
def test_no_reader_misses_a_writer_that_began_first_and_commits_last(
    postgresql_url: str,
    stores: list[Store],
    replica: Replica,
    monkeypatch: pytest.MonkeyPatch,
    by_sequence: bool,
) -> None:
    assert "F34" in FAULTS
    if by_sequence:
        number_by_sequence(monkeypatch, stores[0])
    began, go_on = threading.Event(), threading.Event()

    def write(store: Store, user_id: str) -> None:
        with store.write() as transaction:
            transaction.insert(User(user_id))
            began.set()
            assert user_id != "user_first" or go_on.wait(10)

    plain = make_url(postgresql_url).set(drivername="postgresql")
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    holes: set[int] = set()
    with (
        psycopg.connect(plain.render_as_string(hide_password=False), autocommit=True) as server,
        ThreadPoolExecutor() as threads,
    ):
        first = threads.submit(write, stores[0], "user_first")
        assert began.wait(10)
        second = threads.submit(write, stores[1], "user_second")
        eventually(lambda: second.done() or server.execute(waiting, (plain.database,)).fetchone())
        if second.done():
            eventually(lambda: knows(replica, "user_second"))
        assert not knows(replica, "user_first")
        holes |= missing(stores[2])
        go_on.set()
        first.result(10)
        second.result(10)
    eventually(lambda: knows(replica, "user_second"))
    turns_end = time.monotonic() + 0.3
    eventually(lambda: time.monotonic() > turns_end)
    assert (knows(replica, "user_first"), bool(holes)) == (not by_sequence, by_sequence)


@pytest.mark.soak
def test_fifty_writers_at_once_lose_nothing(stores: list[Store], replica: Replica) -> None:
    """Each counts one further from what it reads."""
    with stores[0].write() as transaction:
        transaction.insert(User("user_counter", attributes={"n": 0.0}))
    base = transaction.revision
    stopped = threading.Event()
    holes: set[int] = set()

    def write(number: int) -> list[tuple[int, float]]:
        done = []
        while len(done) < WRITES:
            # On a busy machine the one before may take longer than anybody waits for the row.
            with suppress(DatabaseUnavailable):
                with stores[number % 4].write() as transaction:
                    counter = transaction.get(User, ("user_counter",))
                    assert counter is not None
                    n = counter.attributes["n"] + 1
                    transaction.update(User("user_counter", attributes={"n": n}))
                done.append((transaction.revision, n))
        return done

    def look() -> None:
        while not stopped.wait(0.005):
            holes.update(missing(stores[2]))

    with ThreadPoolExecutor(WRITERS + 1) as threads:
        looking = threads.submit(look)
        try:
            done = [item for some in threads.map(write, range(WRITERS)) for item in some]
        finally:
            stopped.set()
        looking.result()
    total = WRITERS * WRITES
    # Dense, and each has read what the one before it wrote.
    assert sorted(done) == [(base + n, float(n)) for n in range(1, total + 1)]
    assert not holes
    eventually(lambda: replica.revision == base + total)
    facts = run(replica.view("user_counter", None, [])).user
    assert facts is not None
    assert facts.user.attributes == {"n": float(total)}


def test_of_two_edits_of_one_export_the_second_fails_and_overwrites_nothing(
    postgresql_url: str,
) -> None:
    """Two documents from one export: without `expected_revision` the later one takes back, without
    a word, what the one before it has done."""
    fault = FAULTS["F34"]
    assert grpc.StatusCode.ABORTED in fault.codes
    engine = open_engine(postgresql_url)
    administrator = Administrator(Store(engine), lambda _: None)
    policy = "permissions: [course:view, course:edit]\nroles: {{R: {{allow: [{}]}}}}\n"
    base, _ = administrator.apply(policy.format("course:view"))
    # A webhook meanwhile is none of their business.
    administrator.create(User("user_1"))
    mine, yours = policy.format("course:view, course:edit"), policy.format("")
    applied, _ = administrator.apply(mine, expected_revision=base)
    for dry_run in (True, False):
        with pytest.raises(RevisionChanged) as refused:
            administrator.apply(yours, dry_run, expected_revision=base)
        assert status_of(refused.value)[0] is grpc.StatusCode.ABORTED
    document, revision = administrator.export()
    assert "course:edit" in document.partition("roles:")[2]
    assert revision == applied
    # An entity that does not exist yet is not the expected one either.
    with pytest.raises(RevisionChanged):
        administrator.apply(yours, expected_revision=applied + 1)
    # Users were written since, and this document names them.
    with pytest.raises(RevisionChanged):
        administrator.apply("users: []", expected_revision=base)
    administrator.apply(yours, expected_revision=applied)
    control = administrator.apply(mine)
    assert control[1]
    engine.dispose()
