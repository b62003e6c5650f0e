"""F37, F38: a database that went back in time, or was replaced by another one."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from pdp.database.engine import open_engine
from pdp.errors import DatabaseUnavailable
from pdp.facts import Replica, Store, migrate
from pdp.model import User
from tests.kit.clusters import Cluster, started_cluster
from tests.kit.facts.writing import NEVER, write
from tests.kit.server import ServerProcess
from tests.kit.waiting import eventually, run

Starter = Callable[..., Replica]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with started_cluster() as cluster:
        yield cluster


@pytest.fixture
def engine(cluster: Cluster) -> Iterator[Engine]:
    opened = open_engine(cluster.database())
    migrate(opened)
    yield opened
    opened.dispose()


def epoch(store: Store) -> str:
    with store.read() as reader:
        return reader.epoch


def copy(source: str, target: str) -> None:
    subprocess.run(["rm", "-rf", target], check=True)
    subprocess.run(["cp", "-a", source, target], check=True)


def test_a_restored_database_is_another_history_though_its_revisions_are_the_same_numbers(
    cluster: Cluster, store: Store, start: Starter
) -> None:
    """F37. A copy of the files, as a snapshot of a disk is, which begins no new timeline; and the
    one revision that was lost is written again before anybody looks."""
    data, backup = str(cluster.directory / "data"), str(cluster.directory / "backup")
    write(store, User("user_1", name="before"))
    cluster.kill()
    eventually(lambda: not psutil.pid_exists(postmaster(data)))
    copy(data, backup)
    cluster.start()
    eventually(lambda: reachable(store))
    lost = write(store, User("user_1", name="lost"), User("user_2"))
    replica = start(NEVER)
    subscription = replica.subscribe("", 0)
    first = subscription.next_batch()
    assert run(replica.view("user_1", None, [])).user.user.name == "lost"
    view = run(replica.view("user_2", None, []))
    assert view.user is not None
    cluster.kill()
    eventually(lambda: not psutil.pid_exists(postmaster(data)))
    copy(backup, data)
    cluster.start()
    eventually(lambda: reachable(store))
    assert write(store, User("user_3")) == lost
    replica.poke()
    eventually(lambda: epoch(store) == replica.snapshot.epoch)
    assert run(replica.view("user_1", None, [])).user.user.name == "before"
    assert run(replica.view("user_2", None, [])).user is None
    batch = subscription.next_batch()
    assert (batch.resync, batch.revision) == (True, lost)
    assert batch.epoch != first.epoch
    asked_again = replica.subscribe(first.epoch, lost).next_batch()
    assert asked_again.resync


def postmaster(data: str) -> int:
    return int((Path(data) / "postmaster.pid").read_text().split()[0])


def reachable(store: Store) -> bool:
    try:
        return bool(epoch(store))
    except DatabaseUnavailable:
        return False


def test_a_standby_is_not_read_from_and_is_another_history_once_it_took_over(
    cluster: Cluster, engine: Engine, store: Store
) -> None:
    """F38; also through a pooler, which does not look for a server that takes writes."""
    write(store, User("user_1"))
    database = engine.url.database
    with cluster.standby() as standby:
        url = make_url(standby.url).set(database=database, drivername="postgresql+psycopg")
        looking = open_engine(url.render_as_string(hide_password=False))
        pooled = create_engine(url)
        for engine_ in (looking, pooled):
            eventually(lambda engine_=engine_: "standby" in refusal(Store(engine_)))
        # Of several hosts, the one that takes writes.
        both = [make_url(each).query["host"] for each in (standby.url, cluster.url)]
        several = open_engine(
            url.update_query_dict({"host": both}).render_as_string(hide_password=False)
        )
        assert epoch(Store(several)) == epoch(store)
        standby.promote()
        assert epoch(Store(looking)) != epoch(store)
        for engine_ in (looking, pooled, several):
            engine_.dispose()


def refusal(store: Store) -> str:
    with pytest.raises(DatabaseUnavailable) as refused, store.read():
        pass
    return refused.value.message


def test_after_a_restore_that_no_database_can_tell_the_epoch_is_renewed_by_hand(
    sqlite_url: str, tmp_path: Path
) -> None:
    """From a dump, or of a SQLite file; `pdp database renew-epoch`."""
    opened = open_engine(sqlite_url)
    store = Store(opened)
    write(store, User("user_1"))
    before = epoch(store)
    with opened.begin() as connection:
        connection.execute(text("UPDATE state SET barrier = 1"))
        connection.execute(text("INSERT INTO replicas VALUES ('one', 1, 5.0, 0.0)"))
    machine = ServerProcess(tmp_path, {"DATABASE_URL": sqlite_url})
    done = machine.pdp("database", "renew-epoch")
    assert done.returncode == 0, done.stderr
    assert epoch(store) != before
    with opened.connect() as connection:
        assert connection.execute(text("SELECT barrier FROM state")).scalar() == 0
        # It was of the other history.
        assert connection.execute(text("SELECT acknowledged FROM replicas")).scalar() == 0
    opened.dispose()
