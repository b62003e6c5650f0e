"""A watcher receives each change, once and in order, or the order to resync; never neither."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from pdp.errors import FactsStale, RevisionNotReached
from pdp.facts import Change, ChangeBatch, ChangeKind, ChangeSubscription, Replica, Store
from pdp.facts.replica import change_feed
from pdp.facts.replica.change_feed import CHANGES_PER_BATCH_MAX, History
from pdp.facts.store.changelog import EVERYTHING
from pdp.model import Permission, User
from tests.kit.facts.writing import NEVER, write
from tests.kit.waiting import eventually

Starter = Callable[..., Replica]


def user(name: object) -> Change:
    return Change(ChangeKind.USER, (str(name),))


def received(batch: ChangeBatch) -> list[tuple[int, tuple[str, ...]]]:
    return [(part.revision, change.key) for part in batch.parts for change in part.changes]


def caught_up(store: Store, replica: Replica) -> int:
    replica.poke()
    with store.read() as reader:
        eventually(lambda: replica.revision == reader.revision)
        return reader.revision


def settled(subscription: ChangeSubscription) -> ChangeBatch:
    """The first batch that is not empty."""
    found: list[ChangeBatch] = []

    def has_some() -> bool:
        batch = subscription.next_batch()
        if batch.parts or batch.resync:
            found.append(batch)
        return bool(found)

    eventually(has_some)
    return found[0]


def test_a_write_is_announced_with_exactly_its_keys(store: Store, start: Starter) -> None:
    replica = start(NEVER)
    subscription = replica.subscribe("", 0)
    first = subscription.next_batch()
    assert (first.resync, received(first), first.revision) == (False, [], 0)
    assert first.fresh_seconds is not None
    write(store, User("user_1"), User("user_2"))
    write(store, Permission("course:edit"))
    caught_up(store, replica)
    batch = settled(subscription)
    assert [(part.revision, list(part.changes)) for part in batch.parts] == [
        (1, [user("user_1"), user("user_2")]),
        (2, [Change(ChangeKind.PERMISSION, ("course:edit",))]),
    ]
    assert (batch.revision, batch.epoch) == (2, first.epoch)
    assert not subscription.next_batch().parts


def test_a_watcher_that_comes_back_continues_where_it_was(store: Store, start: Starter) -> None:
    replica = start(NEVER)
    epoch = replica.subscribe("", 0).next_batch().epoch
    for n in range(4):
        write(store, User(f"user_{n}"))
    caught_up(store, replica)
    for after in range(5):
        batch = replica.subscribe(epoch, after).next_batch()
        assert not batch.resync
        assert received(batch) == [(n + 1, (f"user_{n}",)) for n in range(after, 4)]
        assert batch.revision == 4


def test_a_listener_is_called_for_each_change(store: Store, start: Starter) -> None:
    replica = start(NEVER)
    called = threading.Event()
    replica.on_change(called.set)
    write(store, User("user_1"))
    replica.poke()
    assert called.wait(5)


@pytest.mark.parametrize("what", ["another epoch", "before the start", "pruned", "everything"])
def test_changes_that_are_not_kept_are_a_reason_to_resync(
    engine: Engine, store: Store, start: Starter, what: str
) -> None:
    write(store, User("user_1"))
    write(store, User("user_2"))
    replica = start(NEVER)
    here = replica.subscribe("", 0)
    epoch = here.next_batch().epoch
    if what == "another epoch":
        asked = replica.subscribe("other", 2)
    elif what == "before the start":
        asked = replica.subscribe(epoch, 1)
    else:
        asked = here
        write(store, User("user_3"))
        with store.write() as transaction:
            change = EVERYTHING if what == "everything" else user("user_4")
            transaction.touch(change, "session", (), None, None)
        if what == "pruned":
            with engine.begin() as pruned:
                pruned.execute(text("DELETE FROM changes WHERE revision = 3"))
        caught_up(store, replica)
    batch = settled(asked)
    assert batch.resync
    assert not batch.parts
    assert (batch.epoch, batch.revision) == (epoch, replica.revision)
    # From there on it receives what all do.
    write(store, User("user_5"))
    caught_up(store, replica)
    assert received(settled(asked)) == [(replica.revision, ("user_5",))]


def test_a_restored_database_makes_every_watcher_resync(
    engine: Engine, store: Store, start: Starter
) -> None:
    """Even if its revisions are the same numbers, from another history."""
    write(store, User("user_1"))
    replica = start(NEVER)
    subscription = replica.subscribe("", 0)
    subscription.next_batch()
    with engine.begin() as restored:
        restored.execute(text("UPDATE state SET epoch = 'another'"))
    replica.poke()
    batch = settled(subscription)
    assert (batch.resync, batch.epoch.split(".")[0], batch.revision) == (True, "another", 1)


def test_a_revision_that_another_process_has_seen_is_waited_for(
    store: Store, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "REACH_SECONDS_MAX", 0.2)
    replica = start(NEVER)
    epoch = replica.subscribe("", 0).next_batch().epoch
    revision = write(store, User("user_1"))
    subscription = replica.subscribe(epoch, revision)
    eventually(lambda: subscription.next_batch().fresh_seconds is not None)
    assert subscription.next_batch().revision == revision
    never = replica.subscribe(epoch, revision + 1)
    assert never.next_batch().fresh_seconds is None
    with pytest.raises(RevisionNotReached):
        eventually(lambda: never.next_batch().parts, seconds=2)


def test_the_history_is_bounded_and_dropped_changes_demand_a_resync(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(change_feed, "HISTORY_REVISIONS_MAX", 10)
    monkeypatch.setattr(change_feed, "HISTORY_CHANGES_MAX", 25)
    history = History()
    history.restart("e", 0)
    for revision in range(1, 21):
        history.publish({revision: [user(revision)]})
    assert history.find("e", 9) is None
    assert history.find("e", 10) is not None
    history.publish({21: [user(n) for n in range(24)]})
    assert history.find("e", 19) is not None
    assert history.find("e", 18) is None
    history.publish({22: [user(n) for n in range(30)]})
    assert history.find("e", 21) is None
    place = history.find("e", 22)
    assert place is not None
    assert history.since(place) == []
    assert history.since(place - 1) is None


def test_a_revision_of_many_changes_comes_in_parts_and_is_reached_with_the_last(
    store: Store, start: Starter
) -> None:
    replica = start(NEVER)
    subscription = replica.subscribe("", 0)
    epoch = subscription.next_batch().epoch
    names = [f"user_{n}" for n in range(2 * CHANGES_PER_BATCH_MAX + 1)]
    write(store, *map(User, names))
    caught_up(store, replica)
    parts = [settled(subscription) for _ in range(3)]
    assert [batch.revision for batch in parts] == [0, 0, 1]
    assert [batch.fresh_seconds is None for batch in parts] == [True, True, False]
    assert [key for batch in parts for _, (key,) in received(batch)] == names
    # A watcher that was cut off between the parts receives them all again.
    assert replica.subscribe(epoch, 0).next_batch().revision == 0
    assert not replica.subscribe(epoch, 1).next_batch().parts


def test_the_time_that_is_left_runs_out_and_then_there_is_no_news(
    store: Store, start: Starter
) -> None:
    replica = start(NEVER, staleness_seconds_max=0.3)
    subscription = replica.subscribe("", 0)
    left = subscription.next_batch().fresh_seconds
    assert left is not None
    assert left <= 0.3
    eventually(
        lambda: (now := subscription.next_batch().fresh_seconds) is not None and now < left - 0.05
    )
    with pytest.raises(FactsStale) as stale:
        eventually(lambda: subscription.next_batch() is None, seconds=2)
    assert stale.value.metadata["bound_ms"] == "300"
    assert int(stale.value.metadata["age_ms"]) >= 300


Written = dict[str, list[tuple[int, str]]]


def keep_writing(history: History, written: Written, chance: random.Random) -> None:
    """Revisions of one to twenty changes, and now and then another epoch."""
    epoch, revision = history.end()[:2]
    for _ in range(200):
        if chance.random() < 0.01:
            epoch, revision = f"e{len(written)}", chance.randrange(revision + 1)
            written[epoch] = []
            history.restart(epoch, revision)
            continue
        some: dict[int, Sequence[Change]] = {}
        for _ in range(chance.randint(1, 3)):
            revision += 1
            some[revision] = [user(n) for n in range(chance.randint(1, 20))]
            written[epoch] += [(revision, str(n)) for n in range(len(some[revision]))]
        history.publish(some)
        if chance.random() < 0.2:
            time.sleep(0)


def keep_watching(
    history: History, written: Written, chance: random.Random, done: threading.Event
) -> None:
    """Reads until the writer is done, is cut off at times and comes back."""
    epoch, began, place = history.end()
    revision = began
    known: list[tuple[int, str]] = []
    while True:
        finishing = done.is_set()
        found = history.since(place)
        if found is None:
            epoch, began, place = history.end()
            revision, known = began, []
            continue
        for step in found:
            assert step.revision == revision + 1
            known += [(step.revision, change.key[0]) for change in step.changes]
            revision = step.reached
            place += 1
        if finishing and not found:
            assert known == [change for change in written[epoch] if change[0] > began]
            return
        if chance.random() < 0.1:
            again = history.find(epoch, revision)
            place = -1 if again is None else again
            known = [change for change in known if change[0] <= revision]


@pytest.mark.parametrize("seed", range(6))
def test_no_watcher_misses_a_change_whatever_happens_meanwhile(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A writer that never pauses; watchers that come back, and fall behind. Each receives all
    changes since its last resync, in order and once."""
    monkeypatch.setattr(change_feed, "HISTORY_REVISIONS_MAX", 40)
    monkeypatch.setattr(change_feed, "CHANGES_PER_BATCH_MAX", 7)
    history = History()
    history.restart("e0", 0)
    written: Written = {"e0": []}
    done = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        watchers = [
            pool.submit(keep_watching, history, written, random.Random(f"{seed} {n}"), done)
            for n in range(4)
        ]
        keep_writing(history, written, random.Random(seed))
        done.set()
        for watcher in watchers:
            watcher.result()
