"""A committed write wakes every replica at once through PostgreSQL's notifications. Polling works
without them, and a write succeeds without listeners."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest
from sqlalchemy import Engine, event, make_url
from structlog.testing import capture_logs

from pdp.database.engine import open_engine
from pdp.facts import Listener, Replica, Store
from pdp.facts.replica.listener import SPACING_SECONDS
from pdp.facts.store.changelog import CHANNEL
from pdp.model import User
from tests.kit.proxy import Proxy, proxied, refusal
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually, run

NEVER = 3_600.0
"""A poll interval in seconds: the replica polls only if something wakes it."""
POLL_SECONDS = 0.2
"""The default one."""
A_MOMENT = 1.0

Starter = Callable[..., Replica]
Listen = Callable[[Engine, Callable[[], None]], Listener]


@pytest.fixture
def engine(postgresql_url: str) -> Iterator[Engine]:
    """The engine of the process that reads. PostgreSQL only, unlike elsewhere in this room."""
    opened = open_engine(postgresql_url)
    yield opened
    opened.dispose()


@pytest.fixture
def other(postgresql_url: str) -> Iterator[Store]:
    """The store of a process that writes."""
    opened = open_engine(postgresql_url)
    yield Store(opened)
    opened.dispose()


@pytest.fixture
def listen() -> Iterator[Listen]:
    started: list[Listener] = []

    def begin(engine: Engine, changed: Callable[[], None]) -> Listener:
        started.append(Listener(engine, changed))
        started[-1].start()
        return started[-1]

    yield begin
    for listener in started:
        listener.stop()


@pytest.fixture
def way(postgresql_url: str) -> Iterator[tuple[Proxy, Engine]]:
    """A proxy, and an engine whose connections lead through it."""
    with proxied(postgresql_url) as (proxy, url):
        opened = open_engine(url)
        yield proxy, opened
        opened.dispose()


@pytest.fixture
def server(postgresql_url: str) -> Iterator[psycopg.Connection]:
    """To look at the server, and to do things to it."""
    with psycopg.connect(plain(postgresql_url), autocommit=True) as connection:
        yield connection


_NUMBERS = itertools.count()


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def write(store: Store, name: str = "") -> int:
    """Changes a user, by default to a name that they never had: only a change is announced."""
    with store.write() as transaction:
        transaction.apply_many([User("user_1", name=name or f"name {next(_NUMBERS)}")])
    return transaction.revision


def listeners(server: psycopg.Connection) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE query = %s AND datname = current_database()"
    return [pid for (pid,) in server.execute(query, (f"LISTEN {CHANNEL}",))]


def reaches(replica: Replica, revision: int) -> float:
    """Seconds until the replica serves the revision."""
    return eventually(lambda: replica.revision == revision)


def events(logs: list) -> list[str]:
    return [line["event"] for line in logs]


# --- waking ---------------------------------------------------------------------------------------


def test_a_write_is_served_by_another_replica_long_before_it_polls(
    engine: Engine, start: Starter, listen: Listen, server: psycopg.Connection, other: Store
) -> None:
    replica = start(5.0)
    listen(engine, replica.poke)
    eventually(lambda: listeners(server))
    for turn in range(10):
        assert reaches(replica, write(other, str(turn))) < A_MOMENT
        assert run(replica.view("user_1", None, [])).user.user.name == str(turn)


def test_what_was_written_before_anybody_listened_is_looked_for(
    engine: Engine, start: Starter, listen: Listen, other: Store
) -> None:
    replica = start(NEVER)
    revision = write(other)
    listen(engine, replica.poke)
    assert reaches(replica, revision) < 5


def test_hundreds_of_quick_writes_are_a_few_turns(
    engine: Engine, start: Starter, listen: Listen, server: psycopg.Connection, other: Store
) -> None:
    """F23: a storm of notifications is not one of polls."""
    replica = start(NEVER)
    listen(engine, replica.poke)
    eventually(lambda: listeners(server))
    turns: list[object] = []
    event.listen(engine, "begin", turns.append)
    began = time.monotonic()
    for n in range(200):
        revision = write(other, str(n))
    assert reaches(replica, revision) < A_MOMENT
    assert len(turns) <= (time.monotonic() - began) / SPACING_SECONDS + 3


def test_only_what_raised_the_revision_is_announced_after_its_commit_and_on_its_connection(
    postgresql_url: str, other: Store, server: psycopg.Connection
) -> None:
    with psycopg.connect(plain(postgresql_url), autocommit=True) as hearing:
        hearing.execute(f"LISTEN {CHANNEL}")
        with other.write():
            pass
        with other.write() as transaction:
            transaction.mark_written()
        with other.write() as transaction:
            transaction.insert(User("user_2"))
            transaction.discard()
        with pytest.raises(ZeroDivisionError), other.write() as transaction:  # noqa: PT012
            transaction.insert(User("user_2"))
            _ = 1 // 0
        write(other)
        # The announcing connection can be used for transactions afterwards.
        with pytest.raises(ZeroDivisionError), other.write() as transaction:  # noqa: PT012
            transaction.insert(User("user_2"))
            _ = 1 // 0
        (notification,) = hearing.notifies(timeout=5, stop_after=1)
        assert (notification.channel, notification.payload) == (CHANNEL, "")
        assert not list(hearing.notifies(timeout=0))
    with other.read() as reader:
        assert (reader.revision, [user.id for user in reader.list(User)]) == (1, ["user_1"])
    mine = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pdp' AND datname = %s"
    assert [(notification.pid,)] == server.execute(mine, (server.info.dbname,)).fetchall()


def test_on_sqlite_nothing_is_logged_and_nothing_listens(sqlite_url: str, listen: Listen) -> None:
    engine = open_engine(sqlite_url)
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
    threads = threading.active_count()
    listen(engine, lambda: None)
    assert threading.active_count() == threads
    write(Store(engine))
    assert statements
    assert not [statement for statement in statements if "NOTIFY" in statement]
    engine.dispose()


# --- nobody hears (F22) ---------------------------------------------------------------------------


def test_a_listener_that_was_terminated_comes_back_and_meanwhile_polling_serves(
    engine: Engine, start: Starter, listen: Listen, server: psycopg.Connection, other: Store
) -> None:
    replica = start(POLL_SECONDS)
    calls: list[None] = []
    listen(engine, lambda: calls.append(None))
    with capture_logs() as logs:
        for _ in range(2):
            eventually(lambda: listeners(server))
            (before,) = listeners(server)
            server.execute("SELECT pg_terminate_backend(%s)", (before,))
            assert reaches(replica, write(other)) < POLL_SECONDS + A_MOMENT
            eventually(lambda before=before: listeners(server) not in ([], [before]))
        before = len(calls)
        write(other)
        eventually(lambda: len(calls) > before)
    assert events(logs) == ["not_listening", "listening_again"] * 2
    assert "terminat" not in str(logs)


def test_a_listener_that_hears_nothing_any_more_leaves_it_to_polling(
    start: Starter, listen: Listen, way: tuple[Proxy, Engine], other: Store
) -> None:
    """The network drops everything, and the connection does not end."""
    replica = start(POLL_SECONDS)
    calls: list[None] = []
    proxy, engine = way
    listen(engine, lambda: calls.append(None))
    eventually(lambda: calls)
    proxy.blackhole()
    for turn in range(3):
        assert reaches(replica, write(other, str(turn))) < POLL_SECONDS + A_MOMENT
    assert len(calls) == 1
    proxy.forward()
    eventually(lambda: len(calls) > 1)


@pytest.mark.parametrize("answer", [refusal("0A000"), None], ids=["an error", "a reset"])
def test_if_a_pooler_refuses_to_listen_it_is_logged_once_and_polling_serves(
    start: Starter,
    listen: Listen,
    way: tuple[Proxy, Engine],
    other: Store,
    answer: bytes | None,
) -> None:
    proxy, engine = way
    proxy.instead[b"LISTEN"] = answer
    attempts: list[object] = []
    event.listen(engine, "do_connect", lambda *_: attempts.append(None))
    replica = start(POLL_SECONDS)
    with capture_logs() as logs:
        listen(engine, replica.poke)
        eventually(lambda: len(attempts) >= 3)
        assert reaches(replica, write(other)) < POLL_SECONDS + A_MOMENT
        assert events(logs) == ["not_listening"]
        assert "pooler" not in str(logs)
        proxy.instead.clear()
        eventually(lambda: len(logs) == 2)
    assert events(logs) == ["not_listening", "listening_again"]


def test_without_the_database_it_logs_once_without_the_password_and_ends_promptly(
    listen: Listen,
) -> None:
    """SpiceDB CVE-2023-46255 and CVE-2026-40091: the DSN with its password in logs."""
    engine = open_engine("postgresql://user:canary-s3cret@127.0.0.1:1/db")
    attempts: list[object] = []
    event.listen(engine, "do_connect", lambda *_: attempts.append(None))
    with capture_logs() as logs:
        listener = listen(engine, lambda: None)
        eventually(lambda: len(attempts) >= 3)
        watch = Stopwatch()
        listener.stop()
    assert watch.seconds < A_MOMENT
    assert events(logs) == ["not_listening"]
    assert "canary" not in str(logs)
    assert "127.0.0.1" not in str(logs)


# --- nothing can be said (F23) --------------------------------------------------------------------


def test_a_write_is_committed_though_the_queue_of_notifications_is_full(
    postgresql_url: str, server: psycopg.Connection, other: Store
) -> None:
    if int(shown(server, "max_notify_queue_pages")) > 1_000:
        pytest.skip("the queue of this server is too large to fill")
    with psycopg.connect(plain(postgresql_url)) as idle:
        idle.execute("LISTEN elsewhere")
        idle.commit()
        idle.execute("SELECT 1")  # idle in a transaction: it takes nothing from the queue
        with suppress(psycopg.errors.ProgramLimitExceeded):
            while True:
                server.execute("SELECT pg_notify('elsewhere', repeat('x', 7999))")
        with capture_logs() as logs:
            revisions = [write(other, "a"), write(other, "b")]
        assert events(logs) == ["changes_not_announced"]
    with other.read() as reader:
        assert reader.revision == revisions[-1] == 2
    # The holder is gone: this also drops what no listener will take.
    server.execute("SELECT pg_notification_queue_usage()")
    with capture_logs() as logs:
        write(other)
    assert events(logs) == ["changes_announced_again"]


def test_a_write_is_committed_though_its_connection_ends_before_it_is_announced(
    way: tuple[Proxy, Engine], other: Store
) -> None:
    proxy, engine = way
    proxy.instead[b"NOTIFY"] = None
    store = Store(engine)
    with capture_logs() as logs:
        assert [write(store, "a"), write(store, "b")] == [1, 2]
    assert events(logs) == ["changes_not_announced"]
    with other.read() as reader:
        assert reader.revision == 2


def test_a_write_does_not_wait_for_the_lock_on_notifications(
    postgresql_url: str, server: psycopg.Connection, other: Store
) -> None:
    """PostgreSQL has one such lock for all databases of a server, held while a transaction that
    notified commits: here one that waits for a standby."""
    if shown(server, "is_superuser") != "on":
        pytest.skip("it takes a superuser to let a commit wait")
    name = server.info.dbname
    server.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = local')
    write(other)
    with (
        psycopg.connect(plain(postgresql_url), autocommit=True) as slow,
        ThreadPoolExecutor() as threads,
        capture_logs() as logs,
    ):
        pid = slow.info.backend_pid
        slow.execute("SET synchronous_commit = on")
        over = threading.Event()

        def commit_on() -> None:
            # The checkpointer passes the setting on to the others some time after it was read.
            number = 0
            while not over.is_set():
                slow.execute(f"CREATE TABLE t{number} (); NOTIFY elsewhere")
                number += 1

        server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        server.execute("SELECT pg_reload_conf()")
        try:
            eventually(lambda: shown(server, "synchronous_standby_names") == "nobody")
            threads.submit(commit_on)
            eventually(lambda: waits_for(server, pid) == "SyncRep")
            revision = threads.submit(write, other).result(timeout=1)
        finally:
            over.set()
            server.execute("ALTER SYSTEM RESET synchronous_standby_names")
            server.execute("SELECT pg_reload_conf()")
    assert events(logs) == ["changes_not_announced"]
    with other.read() as reader:
        assert reader.revision == revision == 2


def shown(server: psycopg.Connection, setting: str) -> str:
    (value,) = server.execute(f"SHOW {setting}").fetchone() or ("",)
    return value


def waits_for(server: psycopg.Connection, pid: int) -> str | None:
    query = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
    (found,) = server.execute(query, (pid,)).fetchone() or (None,)
    return found
