"""Engines: transactions, bounds, and errors that tell nothing of the URL or the driver."""

import os
import threading
import traceback
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from pdp.database.engine import begin_read, begin_write, open_engine
from pdp.errors import DatabaseUnavailable
from pdp.facts import Replica, Store, migrate
from pdp.model import User
from tests.kit.waiting import eventually

CANARY = "canary-s3cret"


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + str(error) + repr(error)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{CANARY}@127.0.0.1:1/db",
        f"postgres://user:{CANARY}@127.0.0.1:1/db",
        f"postgresql://user:{CANARY}@nowhere.invalid/db",
        f"postgresql://user:{CANARY}@127.0.0.1:1/db?sslmode={CANARY}",
        f"postgresql://user:{CANARY}@127.0.0.1:1/db?{CANARY}=1",
        f"sqlite:////nowhere/{CANARY}/pdp.db",
    ],
)
def test_an_unreachable_database_is_unavailable_and_the_password_is_not_shown(url: str) -> None:
    """SpiceDB CVE-2023-46255 and CVE-2026-40091: the DSN with its password in logs and errors."""
    engine = open_engine(url)
    store = Store(engine)
    with pytest.raises(DatabaseUnavailable) as read, store.read():
        pass
    with pytest.raises(DatabaseUnavailable) as written, store.write():
        pass
    with pytest.raises(DatabaseUnavailable) as migrated:
        migrate(url)
    with capture_logs() as logs:
        replica = Replica(store, staleness_seconds_max=5, poll_seconds=0.01)
        replica.start()
        eventually(lambda: logs)
        replica.stop()
    for error in (read, written, migrated):
        assert CANARY not in everything_said(error.value)
        assert "127.0.0.1" not in str(error.value)
    assert CANARY not in str(logs)


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://user:{CANARY}@host/db",
        f"postgresql+asyncpg://user:{CANARY}@host/db",
        f"{CANARY}",
        f"postgresql://user:{CANARY}@host:port/db",
        f"postgresql://host:{CANARY}/db",
        f"postgresql://user:{CANARY}@[::/db",
        "",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
    ],
)
def test_what_is_no_database_url_of_ours_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="database") as refused:
        open_engine(url)
    assert CANARY not in everything_said(refused.value)


def test_a_wrong_password_is_not_shown(postgresql_url: str) -> None:
    """SpiceDB CVE-2026-40091."""
    from sqlalchemy import make_url

    url = make_url(postgresql_url).set(username="nobody", password=CANARY)
    engine = open_engine(url.render_as_string(hide_password=False))
    with pytest.raises(DatabaseUnavailable) as refused, Store(engine).read():
        pass
    assert CANARY not in everything_said(refused.value)


def test_a_database_without_tables_says_what_to_do(tmp_path: Path, postgresql_server: str) -> None:
    for url in (f"sqlite:///{tmp_path}/new.db", postgresql_server):
        engine = open_engine(url)
        with pytest.raises(DatabaseUnavailable, match="pdp migrate"), Store(engine).read():
            pass
        engine.dispose()


def test_the_parameters_of_a_failed_statement_are_not_shown(database_url: str) -> None:
    engine = open_engine(database_url)
    statement = text("SELECT :value FROM nowhere")
    with (
        pytest.raises(DatabaseUnavailable) as refused,
        begin_read(engine) as connection,
    ):
        connection.execute(statement, {"value": CANARY})
    assert CANARY not in everything_said(refused.value)
    engine.dispose()


def test_a_read_transaction_cannot_see_what_is_committed_meanwhile(database_url: str) -> None:
    engine = open_engine(database_url)
    count = text("SELECT count(*) FROM users")
    with begin_read(engine) as reader:
        assert reader.execute(count).scalar_one() == 0
        with Store(engine).write() as transaction:
            transaction.insert(User("user_1"))
        assert reader.execute(count).scalar_one() == 0
    with begin_read(engine) as reader:
        assert reader.execute(count).scalar_one() == 1
    engine.dispose()


def test_a_write_that_raises_leaves_nothing(database_url: str) -> None:
    engine = open_engine(database_url)
    with pytest.raises(ZeroDivisionError), begin_write(engine) as connection:  # noqa: PT012
        connection.execute(text("DELETE FROM state"))
        _ = 1 // 0
    with begin_read(engine) as reader:
        assert reader.execute(text("SELECT count(*) FROM state")).scalar_one() == 1
    engine.dispose()


def test_writers_of_one_database_wait_for_each_other(database_url: str) -> None:
    engine = open_engine(database_url)
    failures: list[Exception] = []

    def write(number: int) -> None:
        try:
            with Store(engine).write() as transaction:
                transaction.list(User)  # reads before it writes
                transaction.insert(User(f"user_{number}"))
        except Exception as error:  # noqa: BLE001  # whatever it is, the test shows it
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Store(engine).read() as reader:
        assert reader.revision == 12
    engine.dispose()


def test_sqlite_keeps_foreign_keys_and_a_write_ahead_log(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    with begin_read(engine) as connection:
        assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("PRAGMA busy_timeout")).scalar_one() == 5000
    engine.dispose()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_new_sqlite_database_is_for_its_owner_alone_whatever_the_umask(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        engine = open_engine(f"sqlite:///{tmp_path / 'pdp.db'}")
        assert not (tmp_path / "pdp.db").exists(), "made when it is first used"
        migrate(engine)
        with begin_write(engine), begin_read(engine):
            assert modes(tmp_path) == {"pdp.db": 0o600, "pdp.db-wal": 0o600, "pdp.db-shm": 0o600}
    finally:
        os.umask(before)
    engine.dispose()


def test_what_others_may_read_of_a_sqlite_database_is_taken_from_them_and_logged(
    tmp_path: Path,
) -> None:
    file = tmp_path / "pdp.db"
    first = open_engine(f"sqlite:///{file}")
    migrate(first)
    with begin_write(first), begin_read(first):
        for suffix in ("", "-wal", "-shm"):
            Path(f"{file}{suffix}").chmod(0o666)
        with capture_logs() as logs:
            second = open_engine(f"sqlite:///{file}")
            with begin_read(second):
                pass
        assert set(modes(tmp_path).values()) == {0o600}
    entries = [entry for entry in logs if entry["event"] == "database_file_made_private"]
    assert {entry["mode"] for entry in entries} == {"0666"}
    assert len(entries) == 3
    first.dispose()
    second.dispose()


def modes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
