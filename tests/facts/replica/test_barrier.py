"""After a barrier nobody answers from before; and what cannot acknowledge it is not waited for
longer than it could have answered."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, insert, select, text

from pdp.errors import FactsStale, Overloaded, RevisionNotReached
from pdp.facts import BarrierResult, Barriers, Replica, Store, renew_epoch
from pdp.facts.replica import leases, registration
from pdp.facts.replica.barrier import BARRIERS_MAX
from pdp.facts.replica.registration import Registration
from pdp.facts.store.tables import replicas
from pdp.model import RevokedSession, User
from tests.kit.facts.writing import write
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually, run

Starter = Callable[..., Replica]
LEASE = 0.4


@pytest.fixture
def barriers(engine: Engine) -> Barriers:
    return Barriers(engine)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(BARRIERS_MAX) as pool:
        yield pool


def revoke(store: Store, session: str) -> int:
    with store.write() as transaction:
        transaction.revoke_session(RevokedSession(session, "user_1"))
    return transaction.revision


def rows(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        found = connection.execute(select(replicas.c.id, replicas.c.acknowledged))
        return {row.id: row.acknowledged for row in found}


def leave_a_row(engine: Engine, staleness_seconds_max: float) -> None:
    """As a process does that was killed."""
    row = {"id": "dead", "acknowledged": 0, "seen_at": 1.0}
    with engine.begin() as connection:
        connection.execute(
            insert(replicas).values(**row, staleness_seconds_max=staleness_seconds_max)
        )


def test_after_a_barrier_no_replica_answers_from_before(
    store: Store, start: Starter, barriers: Barriers
) -> None:
    """Not even a replica that was about to answer."""
    write(store, User("user_1"))
    three = [start(0.1) for _ in range(3)]
    stopwatch = Stopwatch()
    for turn in range(5):
        before = [run(replica.view("user_1", None, [])) for replica in three]
        revision = revoke(store, f"sess_{turn}")
        assert barriers.wait(revision) == BarrierResult(revision, replicas=3, silent=0)
        for replica, view in zip(three, before, strict=True):
            assert f"sess_{turn}" in run(replica.view("user_1", None, [])).user.revoked_sessions
            with pytest.raises(FactsStale):
                replica.confirm(view)
    assert stopwatch.seconds < 5 * 1.0  # a few polls each
    assert barriers.wait(0) == BarrierResult(revision, replicas=3, silent=0)


def test_a_replica_that_is_paused_is_waited_for_until_it_cannot_answer(
    store: Store, start: Starter, barriers: Barriers
) -> None:
    """F6, F25: it does not know of the write, and goes on answering from memory for a while."""
    write(store, User("user_1"))
    paused, other = start(staleness_seconds_max=1.0), start()
    run(paused.view("user_1", None, []))
    with paused._catch_up_lock:
        revision = revoke(store, "sess_1")
        stopwatch = Stopwatch()
        assert barriers.wait(revision) == BarrierResult(revision, replicas=2, silent=1)
        assert stopwatch.elapsed >= 1.0
        assert stopwatch.seconds < 1.0 + 0.6
        with pytest.raises(FactsStale):
            run(paused.view("user_1", None, []))
        assert run(other.view("user_1", None, [])).revision == revision
    eventually(paused.ready)
    assert barriers.wait(revision).silent == 0


def test_the_row_of_a_dead_process_is_waited_for_and_then_removed_by_others(
    engine: Engine,
    store: Store,
    start: Starter,
    barriers: Barriers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows of live replicas stay, and none of it raises the revision."""
    monkeypatch.setattr(registration, "REFRESH_SECONDS", 0.05)
    monkeypatch.setattr(registration, "SILENT_SECONDS_MAX", 0.5)
    revision = write(store, User("user_1"))
    start(staleness_seconds_max=5.0), start(staleness_seconds_max=5.0)
    leave_a_row(engine, 0.5)
    stopwatch = Stopwatch()
    assert barriers.wait(revision) == BarrierResult(revision, replicas=3, silent=1)
    assert stopwatch.elapsed >= 0.5
    assert stopwatch.seconds < 0.5 + 0.6
    eventually(lambda: "dead" not in rows(engine))
    until = time.monotonic() + 0.7
    eventually(lambda: time.monotonic() > until)
    assert len(rows(engine)) == 2
    assert barriers.wait(0) == BarrierResult(revision, replicas=2, silent=0)


def test_a_barrier_outlasts_every_lease_that_was_given_before(
    store: Store, start: Starter, barriers: Barriers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F24: a watcher that is cut off, or has left, serves from its cache until its lease ends."""
    monkeypatch.setattr(leases, "LEASE_SECONDS_MAX", LEASE)
    write(store, User("user_1"))
    replica = start()
    given: list[tuple[int, float]] = []
    stop = threading.Event()

    def watch_and_leave() -> None:
        while not stop.is_set():
            subscription = replica.subscribe("", 0)
            for _ in range(5):
                now = time.monotonic()
                batch = subscription.next_batch()
                if batch.fresh_seconds is not None:
                    given.append((batch.revision, now + min(LEASE, batch.fresh_seconds)))
                stop.wait(0.002)
            subscription.close()
            stop.wait(0.005)

    watcher = threading.Thread(target=watch_and_leave)
    watcher.start()
    try:
        for turn in range(4):
            eventually(lambda: given and given[-1][0] == replica.revision)
            revision = revoke(store, f"sess_{turn}")
            stopwatch = Stopwatch()
            barriers.wait(revision)
            now = time.monotonic()
            assert [end for of, end in list(given) if of < revision and end > now] == []
            assert stopwatch.elapsed > LEASE / 2
            assert stopwatch.seconds < LEASE + 1
    finally:
        stop.set()
        watcher.join()
    until = time.monotonic() + LEASE
    eventually(lambda: time.monotonic() > until)
    stopwatch = Stopwatch()
    barriers.wait(revoke(store, "sess_last"))
    assert stopwatch.seconds < LEASE  # nobody watches any more


def test_writes_that_go_on_do_not_put_a_barrier_off(
    store: Store, start: Starter, barriers: Barriers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watchers hold leases of each revision; those from before the one that is meant count."""
    monkeypatch.setattr(leases, "LEASE_SECONDS_MAX", LEASE)
    first = write(store, User("user_1"))
    replica = start()
    subscription = replica.subscribe("", 0)
    stop = threading.Event()

    def go_on() -> None:
        turn = 0
        while not stop.wait(0.02):
            write(store, User("user_1", name=str(turn := turn + 1)))

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        eventually(lambda: replica.revision > first + 2)
        stopwatch = Stopwatch()
        assert barriers.wait(0).silent == 0
        assert stopwatch.elapsed > LEASE / 2
        assert stopwatch.seconds < LEASE + 2
    finally:
        stop.set()
        writer.join()
        subscription.close()


def test_a_replica_without_its_row_confirms_nothing_until_it_is_registered_again(
    engine: Engine, store: Store, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = write(store, User("user_1"))
    replica = start(staleness_seconds_max=0.5)
    (row,) = rows(engine)
    with monkeypatch.context() as patched:
        patched.setattr(Registration, "refresh", lambda _: None)
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM replicas"))
        eventually(lambda: not replica.ready())
        with pytest.raises(FactsStale):
            run(replica.view("user_1", None, []))
        assert rows(engine) == {}
    eventually(replica.ready)
    # Its return does not confirm what it answered before.
    assert rows(engine) == {row: 0}
    assert Barriers(engine).wait(revision) == BarrierResult(revision, replicas=1, silent=0)
    assert rows(engine) == {row: revision}


def test_a_replica_that_cannot_refresh_its_row_stops_before_others_may_remove_it(
    engine: Engine, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it sees that the row is there."""
    monkeypatch.setattr(registration, "REFRESH_SECONDS", 0.05)
    monkeypatch.setattr(registration, "UNREFRESHED_SECONDS_MAX", 0.5)
    replica = start(staleness_seconds_max=0.5)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(
                text(
                    "CREATE TRIGGER refuse BEFORE UPDATE ON replicas "
                    "BEGIN SELECT RAISE(ABORT, 'no'); END"
                )
            )
        else:
            connection.execute(text("ALTER TABLE replicas ADD CHECK (seen_at < 0) NOT VALID"))
    assert replica.ready()
    eventually(lambda: replica.staleness_seconds() > 1.5)
    assert len(rows(engine)) == 1


def test_a_long_writer_does_not_keep_replicas_from_confirming(
    store: Store, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite there is one writer at a time, and a refresh is one, too."""
    monkeypatch.setattr(registration, "REFRESH_SECONDS", 0.0)
    replica = start(staleness_seconds_max=1.0)
    with store.write():
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert replica.ready()
            time.sleep(0.01)


def test_a_replica_that_stops_removes_its_row_once_the_leases_have_run_out(
    engine: Engine, store: Store, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F5: a watcher that missed the end of the process still serves from its cache."""
    monkeypatch.setattr(leases, "LEASE_SECONDS_MAX", LEASE)
    revision = write(store, User("user_1"))
    replica = start()
    subscription = replica.subscribe("", 0)
    assert subscription.next_batch().fresh_seconds
    subscription.close()
    stopwatch = Stopwatch()
    replica.stop()
    assert stopwatch.elapsed > LEASE - 0.1
    assert stopwatch.seconds < LEASE + 1
    assert rows(engine) == {}
    assert Barriers(engine).wait(revision) == BarrierResult(revision, replicas=0, silent=0)


def free_places(barriers: Barriers) -> int:
    """For how many more waits there is room."""
    return barriers._slots._value


def test_as_many_barriers_as_there_is_room_for_wait_at_once(
    engine: Engine, store: Store, barriers: Barriers, pool: ThreadPoolExecutor
) -> None:
    """None of them holds a connection meanwhile."""
    revision = write(store, User("user_1"))
    leave_a_row(engine, 1.0)
    waiting: list[Future[BarrierResult]] = [
        pool.submit(barriers.wait, revision) for _ in range(BARRIERS_MAX)
    ]
    eventually(lambda: free_places(barriers) == 0)
    with pytest.raises(Overloaded):
        barriers.wait(revision)
    assert {barrier.result(10) for barrier in waiting} == {
        BarrierResult(revision, replicas=1, silent=1)
    }
    assert free_places(barriers) == BARRIERS_MAX


@pytest.mark.parametrize("beyond", [1, 2**63, 2**64 - 1])
def test_a_revision_that_is_not_committed_is_not_waited_for(
    engine: Engine, store: Store, barriers: Barriers, beyond: int
) -> None:
    revision = write(store, User("user_1"))
    leave_a_row(engine, 60)
    with pytest.raises(RevisionNotReached):
        barriers.wait(revision + beyond if beyond == 1 else beyond)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT barrier FROM state")).scalar() == 0


def test_a_barrier_does_not_outlast_the_history_that_its_revision_is_of(
    engine: Engine, store: Store, barriers: Barriers, pool: ThreadPoolExecutor
) -> None:
    """F37: the revision is one of another history now."""
    revision = write(store, User("user_1"))
    leave_a_row(engine, 60)
    waiting = pool.submit(barriers.wait, revision)
    with engine.connect() as connection:
        raised = text("SELECT barrier FROM state")
        eventually(lambda: connection.execute(raised).scalar() == revision or connection.rollback())
    renew_epoch(engine)
    with pytest.raises(RevisionNotReached):
        waiting.result(5)


def test_what_was_applied_of_one_history_is_not_acknowledged_in_another(
    engine: Engine, store: Store
) -> None:
    """F37: the database is restored just before a replica acknowledges."""
    revision = write(store, User("user_1"))
    own = Registration(engine, staleness_seconds_max=60.0)
    own.refresh()
    with store.read() as reader:
        before = reader.epoch
    renew_epoch(engine)
    own.acknowledge(revision + 100, before)
    assert list(rows(engine).values()) == [0]
    with store.read() as reader:
        after = reader.epoch
    own.acknowledge(revision, after)
    assert list(rows(engine).values()) == [revision]
    own.leave()


def test_a_barrier_from_the_future_does_not_hold_up_those_of_today(
    engine: Engine, store: Store, start: Starter, barriers: Barriers
) -> None:
    """As a restored table may hold one."""
    revision = write(store, User("user_1"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE state SET barrier = 1000"))
    start(staleness_seconds_max=60.0)
    assert barriers.wait(revision) == BarrierResult(revision, replicas=1, silent=0)
    revision = revoke(store, "sess_1")
    assert barriers.wait(revision) == BarrierResult(revision, replicas=1, silent=0)
