"""The rules of the caches, under every order of events: see `pdp/facts/replica/snapshot.py`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from pdp.facts import Replica, Store
from pdp.facts.replica.lookup import Lookup
from pdp.facts.replica.snapshot import SnapshotCell
from pdp.facts.store.loader import FactBatch, FactKeys, load_facts
from pdp.model import Resource, ResourceRef, User
from tests.kit import soak
from tests.kit.waiting import eventually, run


class Unguarded(SnapshotCell):
    """The control: treats every batch as if it was read at the current revision."""

    def fill(self, batch: FactBatch) -> None:
        super().fill(replace(batch, revision=self.current.revision))


def interleavings(*threads: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every order of all steps in which each thread keeps its own order."""
    if not any(threads):
        yield ()
    for place, thread in enumerate(threads):
        if thread:
            rest = [*threads[:place], thread[1:], *threads[place + 1 :]]
            for tail in interleavings(*rest):
                yield (thread[0], *tail)


def read_facts(store: Store, missing: FactKeys) -> FactBatch:
    with store.read() as reader:
        return load_facts(reader, missing)


def loaded_replica(store: Store, cell: SnapshotCell) -> Replica:
    """A replica without its thread. It keeps its snapshots in `cell`, and has loaded one."""
    replica = Replica(store, staleness_seconds_max=60, poll_seconds=3600)
    replica._cell = cell
    catch_up(replica)
    return replica


def catch_up(replica: Replica) -> None:
    """What the thread of a replica does at each poll."""
    replica._poll()


def stale_answers(store: Store, cell: SnapshotCell, steps: Iterable[str]) -> list[object]:
    """Runs the steps one by one; after each, compares the answer of the caches with the
    database at the revision of the answer."""
    replica = loaded_replica(store, cell)
    with store.read() as reader:
        truth = {reader.revision: reader.get(User, ("user_1",))}
    read: dict[str, FactBatch] = {}
    wrong: list[object] = []
    for step in steps:
        action, who = step[0], step[1:]
        if action == "r":
            read[who] = read_facts(store, FactKeys({"user_1"}, {"org_1"}, {("course", "1")}))
        elif action == "f":
            cell.fill(read[who])
        elif action == "w":
            with store.write() as transaction:
                before = transaction.get(User, ("user_1",))
                changed = User("user_1", name=f"{transaction.revision + 1}")
                assert changed != before
                transaction.apply_many([changed, Resource("course", "1", changed.name)])
            truth[transaction.revision] = changed
        elif action == "a":
            catch_up(replica)
        lookup = Lookup(cell.current, None)
        user = lookup.user("user_1")
        chain = lookup.chain(Resource("course", "1"))
        true = truth[cell.current.revision]
        missing = lookup.missing or FactKeys()
        if not missing.users and (user and user.user) != true:
            wrong.append((step, cell.current.revision, user))
        if not missing.resources and chain[0].resource.organization_id != (
            true.name if true else None
        ):
            wrong.append((step, cell.current.revision, chain))
    return wrong


ORDERS = list(interleavings(["r1", "f1"], ["r2", "f2"], ["w", "a"]))
DEEP_ORDERS = list(interleavings(["r1", "f1"], ["w", "w", "w"], ["a", "a"]))


def test_there_are_as_many_orders_as_there_must_be() -> None:
    assert len(ORDERS) == 90
    assert len(DEEP_ORDERS) == 210


@pytest.mark.soak
def test_no_order_of_read_fill_write_and_apply_leaves_a_stale_entry(engine: Engine) -> None:
    """OpenFGA #3155: a fill that raced a write survived the invalidation."""
    store = Store(engine)
    for order in ORDERS[:: soak.count(1, sample=7)]:
        assert stale_answers(store, SnapshotCell(), order) == [], order


@pytest.mark.soak
def test_no_order_with_several_writes_leaves_a_stale_entry(sqlite_url: str) -> None:
    """OpenFGA #3155, with reads between writes that are applied together."""
    from pdp.database.engine import open_engine

    engine = open_engine(sqlite_url)
    store = Store(engine)
    for order in DEEP_ORDERS[:: soak.count(1, sample=7)]:
        assert stale_answers(store, SnapshotCell(), order) == [], order
    engine.dispose()


def test_control_without_the_rule_the_race_leaves_one(engine: Engine) -> None:
    # The race itself: read, then written and applied, then filled.
    order = ("r1", "r2", "w", "a", "f1", "f2")
    assert order in ORDERS
    assert stale_answers(Store(engine), Unguarded(), order)


def test_an_entry_of_a_later_revision_is_passed_over(engine: Engine) -> None:
    """It would be right, but not at the revision of the rest of the view."""
    store = Store(engine)
    cell = SnapshotCell()
    replica = loaded_replica(store, cell)
    with store.write() as transaction:
        transaction.insert(User("user_1"))
    cell.fill(read_facts(store, FactKeys({"user_1", "user_2"})))
    lookup = Lookup(cell.current, None)
    assert lookup.user("user_1") is None
    assert lookup.user("user_2") is None
    assert lookup.missing == FactKeys({"user_1", "user_2"})
    catch_up(replica)
    lookup = Lookup(cell.current, None)
    lookup.user("user_2")
    assert not lookup.missing


def test_what_was_read_in_another_epoch_is_not_stored(engine: Engine) -> None:
    store = Store(engine)
    cell = SnapshotCell()
    loaded_replica(store, cell)
    batch = read_facts(store, FactKeys({"user_1"}))
    cell.fill(replace(batch, epoch="another"))
    lookup = Lookup(cell.current, None)
    lookup.user("user_1")
    assert lookup.missing


def test_the_caches_are_bounded_and_a_view_larger_than_them_is_still_whole(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.facts.replica.snapshot.RESOURCES_MAX", 3)
    monkeypatch.setattr("pdp.facts.replica.snapshot.USERS_MAX", 2)
    store = Store(engine)
    with store.write() as transaction:
        transaction.apply_many(
            Resource("t", str(n), None, ResourceRef("t", str(n // 2)) if n > 1 else None)
            for n in range(1, 21)
        )
    replica = Replica(store, staleness_seconds_max=60, poll_seconds=3600)
    replica.start()
    try:
        eventually(replica.ready)
        for n in range(5):
            view = run(
                replica.view(f"user_{n}", None, [Resource("t", str(n)) for n in range(1, 21)])
            )
            assert [len(chain) for chain in view.chains] == [n.bit_length() for n in range(1, 21)]
        caches = replica.snapshot.caches
        assert (len(caches.resources), len(caches.users)) == (3, 2)
    finally:
        replica.stop()
