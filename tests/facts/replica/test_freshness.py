"""An answer is given only while its revision is confirmed as the newest within the bound."""

import time
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import make_url

from pdp.database.engine import open_engine
from pdp.errors import DatabaseUnavailable, FactsStale, Unavailable
from pdp.facts import Replica, Store
from pdp.model import User
from tests.kit.facts.outage import Outage
from tests.kit.proxy import proxied
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually, run


@pytest.fixture
def store(postgresql_url: str) -> Iterator[Store]:
    engine = open_engine(postgresql_url)
    with Store(engine).write() as transaction:
        transaction.insert(User("user_1"))
    yield Store(engine)
    engine.dispose()


def test_answers_end_with_the_bound_when_the_database_is_gone_and_come_back_with_it(
    postgresql_url: str, store: Store
) -> None:
    replica = Replica(store, staleness_seconds_max=0.5, poll_seconds=0.05)
    replica.start()
    try:
        eventually(replica.ready)
        view = run(replica.view("user_1", None, []))
        outage = Outage(postgresql_url)
        outage.begin()
        watch = Stopwatch()
        # Facts in memory still answer within the bound; others do not.
        with pytest.raises(Unavailable):
            run(replica.view("user_2", None, []))
        eventually(lambda: not replica.ready(), seconds=3)
        assert watch.seconds < 0.5 + 0.5
        with pytest.raises(FactsStale):
            run(replica.view("user_1", None, []))
        with pytest.raises(FactsStale) as stale:
            replica.confirm(view)
        assert stale.value.metadata["bound_ms"] == "500"
        assert int(stale.value.metadata["age_ms"]) >= 500
        outage.end()
        eventually(replica.ready)
        replica.confirm(run(replica.view("user_1", None, [])))
    finally:
        replica.stop()


def test_a_database_that_hangs_is_as_good_as_gone(postgresql_url: str, store: Store) -> None:
    replica = Replica(store, staleness_seconds_max=0.5, poll_seconds=0.05)
    replica.start()
    plain = make_url(postgresql_url).set(drivername="postgresql")
    try:
        eventually(replica.ready)
        run(replica.view("user_1", None, []))
        with psycopg.connect(plain.render_as_string(hide_password=False)) as blocker:
            blocker.execute("LOCK TABLE state IN ACCESS EXCLUSIVE MODE")
            eventually(lambda: not replica.ready(), seconds=3)
            watch = Stopwatch()
            with pytest.raises(FactsStale):
                run(replica.view("user_1", None, []))
            assert watch.seconds < 0.2
        eventually(replica.ready)
    finally:
        replica.stop()


def test_a_connection_that_died_in_silence_is_found_well_within_the_bound(
    postgresql_url: str, store: Store
) -> None:
    """F3, F26: the connection acknowledges packets but never answers; new connections work."""
    with proxied(postgresql_url) as (proxy, url):
        engine = open_engine(url)
        replica = Replica(Store(engine), staleness_seconds_max=5, poll_seconds=0.05)
        replica.start()
        try:
            eventually(replica.ready)
            # The poll that loads all may take longer, and is not over when its facts are there.
            loaded_at = replica.snapshot.confirmed_at
            eventually(lambda: replica.snapshot.confirmed_at > loaded_at)
            proxy.forget()
            eventually(lambda: replica.staleness_seconds() > 1)
            eventually(lambda: replica.staleness_seconds() < 0.5, seconds=3.5)
            assert run(replica.view("user_2", None, [])).user is None
        finally:
            replica.stop()
            engine.dispose()


def test_a_statement_that_hangs_is_ended_after_five_seconds(
    postgresql_url: str, store: Store
) -> None:
    plain = make_url(postgresql_url).set(drivername="postgresql")
    with psycopg.connect(plain.render_as_string(hide_password=False)) as blocker:
        blocker.execute("LOCK TABLE state IN ACCESS EXCLUSIVE MODE")
        watch = Stopwatch()
        with pytest.raises(DatabaseUnavailable), store.write():
            pass
        assert watch.elapsed > 4
        assert watch.seconds < 8


def test_a_pause_after_reading_is_noticed_though_the_process_has_caught_up(store: Store) -> None:
    """The check comes after the evaluation, and concerns the view behind the answer: that
    the process is current again does not make an old view new."""
    replica = Replica(store, staleness_seconds_max=0.3, poll_seconds=0.02)
    replica.start()
    try:
        eventually(replica.ready)
        view = run(replica.view("user_1", None, []))
        replica.confirm(view)
        with store.write() as transaction:
            transaction.update(User("user_1", name="changed"))
        eventually(lambda: replica.revision == transaction.revision)
        replica.confirm(view)  # within the bound an answer may be that old
        until = time.monotonic() + 0.35
        eventually(lambda: time.monotonic() > until)
        assert replica.ready()
        with pytest.raises(FactsStale):
            replica.confirm(view)
        replica.confirm(run(replica.view("user_1", None, [])))
    finally:
        replica.stop()
