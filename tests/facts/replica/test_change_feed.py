"""A watcher receives each change, once and in order, or the order to resync; never neither."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from pdp.errors import FactsStale, RevisionNotReached
from pdp.facts import Change, ChangeKind, News, Replica, Store, Watch
from pdp.facts.replica import change_feed
from pdp.facts.replica.change_feed import CHANGES_AT_ONCE_MAX, History
from pdp.facts.store.changelog import EVERYTHING
from pdp.model import Permission, User
from tests.kit.facts.writing import NEVER, write
from tests.kit.waiting import eventually

Starter = Callable[..., Replica]


def user(name: object) -> Change:
    return Change(ChangeKind.USER, (str(name),))


def received(news: News) -> list[tuple[int, tuple[str, ...]]]:
    return [(step.revision, change.key) for step in news.steps for change in step.changes]


def caught_up(store: Store, replica: Replica) -> int:
    replica.poke()
    with store.read() as reader:
        eventually(lambda: replica.revision == reader.revision)
        return reader.revision


def settled(watch: Watch) -> News:
    """The first news with something in it."""
    found: list[News] = []

    def has_some() -> bool:
        news = watch.news()
        if news.steps or news.start_over:
            found.append(news)
        return bool(found)

    eventually(has_some)
    return found[0]


def test_a_write_is_announced_with_exactly_its_keys(store: Store, start: Starter) -> None:
    replica = start(NEVER)
    watch = replica.watch("", 0)
    first = watch.news()
    assert (first.start_over, received(first), first.revision) == (False, [], 0)
    assert first.left_seconds is not None
    write(store, User("user_1"), User("user_2"))
    write(store, Permission("course:edit"))
    caught_up(store, replica)
    news = settled(watch)
    assert [(step.revision, list(step.changes)) for step in news.steps] == [
        (1, [user("user_1"), user("user_2")]),
        (2, [Change(ChangeKind.PERMISSION, ("course:edit",))]),
    ]
    assert (news.revision, news.epoch, news.behind) == (2, first.epoch, False)
    assert not watch.news().steps


def test_a_watcher_that_comes_back_continues_where_it_was(store: Store, start: Starter) -> None:
    replica = start(NEVER)
    epoch = replica.watch("", 0).news().epoch
    for n in range(4):
        write(store, User(f"user_{n}"))
    caught_up(store, replica)
    for after in range(5):
        news = replica.watch(epoch, after).news()
        assert not news.start_over
        assert received(news) == [(n + 1, (f"user_{n}",)) for n in range(after, 4)]
        assert news.revision == 4


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
    here = replica.watch("", 0)
    epoch = here.news().epoch
    if what == "another epoch":
        asked = replica.watch("other", 2)
    elif what == "before the start":
        asked = replica.watch(epoch, 1)
    else:
        asked = here
        write(store, User("user_3"))
        with store.write() as transaction:
            transaction.note(EVERYTHING if what == "everything" else user("user_4"))
        if what == "pruned":
            with engine.begin() as pruned:
                pruned.execute(text("DELETE FROM changes WHERE revision = 3"))
        caught_up(store, replica)
    news = settled(asked)
    assert news.start_over
    assert not news.steps
    assert (news.epoch, news.revision) == (epoch, replica.revision)
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
    watch = replica.watch("", 0)
    watch.news()
    with engine.begin() as restored:
        restored.execute(text("UPDATE state SET epoch = 'another'"))
    replica.poke()
    news = settled(watch)
    assert (news.start_over, news.epoch.split(".")[0], news.revision) == (True, "another", 1)


def test_a_revision_that_another_process_has_seen_is_waited_for(
    store: Store, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "REACH_SECONDS_MAX", 0.2)
    replica = start(NEVER)
    epoch = replica.watch("", 0).news().epoch
    revision = write(store, User("user_1"))
    watch = replica.watch(epoch, revision)
    eventually(lambda: watch.news().left_seconds is not None)
    assert watch.news().revision == revision
    never = replica.watch(epoch, revision + 1)
    assert never.news().left_seconds is None
    with pytest.raises(RevisionNotReached):
        eventually(lambda: never.news().steps, seconds=2)


def test_the_history_is_bounded_and_dropped_changes_demand_a_resync(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(change_feed, "REVISIONS_KEPT_MAX", 10)
    monkeypatch.setattr(change_feed, "CHANGES_KEPT_MAX", 25)
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
    assert history.since(place) == ([], False)
    assert history.since(place - 1) is None


def test_a_revision_of_many_changes_comes_in_parts_and_is_reached_with_the_last(
    store: Store, start: Starter
) -> None:
    replica = start(NEVER)
    watch = replica.watch("", 0)
    epoch = watch.news().epoch
    names = [f"user_{n}" for n in range(2 * CHANGES_AT_ONCE_MAX + 1)]
    write(store, *map(User, names))
    caught_up(store, replica)
    parts = [settled(watch) for _ in range(3)]
    assert [(news.revision, news.behind) for news in parts] == [(0, True), (0, True), (1, False)]
    assert [news.left_seconds is None for news in parts] == [True, True, False]
    assert [key for news in parts for _, (key,) in received(news)] == names
    # A watcher that was cut off between the parts receives them all again.
    assert replica.watch(epoch, 0).news().behind
    assert not replica.watch(epoch, 1).news().steps


def test_the_time_that_is_left_runs_out_and_then_there_is_no_news(
    store: Store, start: Starter
) -> None:
    replica = start(NEVER, staleness_seconds_max=0.3)
    watch = replica.watch("", 0)
    left = watch.news().left_seconds
    assert left is not None
    assert left <= 0.3
    eventually(lambda: (now := watch.news().left_seconds) is not None and now < left - 0.05)
    with pytest.raises(FactsStale) as stale:
        eventually(lambda: watch.news() is None, seconds=2)
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
        for step in found[0]:
            assert step.revision == revision + 1
            known += [(step.revision, change.key[0]) for change in step.changes]
            revision = step.reached
            place += 1
        if finishing and not found[0]:
            assert known == [one for one in written[epoch] if one[0] > began]
            return
        if chance.random() < 0.1:
            again = history.find(epoch, revision)
            place = -1 if again is None else again
            known = [one for one in known if one[0] <= revision]


@pytest.mark.parametrize("seed", range(6))
def test_no_watcher_misses_a_change_whatever_happens_meanwhile(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A writer that never pauses; watchers that come back, and fall behind. Each receives all
    changes since its last resync, in order and once."""
    monkeypatch.setattr(change_feed, "REVISIONS_KEPT_MAX", 40)
    monkeypatch.setattr(change_feed, "CHANGES_AT_ONCE_MAX", 7)
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
