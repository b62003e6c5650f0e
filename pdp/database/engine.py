"""Opens SQL databases and translates their errors.

Used by `facts`, `audit` and `migrations`. No text of a driver and no part of the URL leaves this
module: messages hold only the class of the error and its SQLSTATE.
"""

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import psycopg
import structlog
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pdp.database.conditions import condition_of
from pdp.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

CONNECT_SECONDS_MAX = 3
STATEMENT_SECONDS_MAX = 5
POOL_CONNECTIONS_MAX = 16
ANNOUNCE_SECONDS_MAX = 0.25
SILENCE_SECONDS_MAX = STATEMENT_SECONDS_MAX + 1
"""A server that is silent for longer is gone: its own timeout would have ended the statement."""
POLL_SECONDS_MAX = 1
POLL_SILENCE_SECONDS_MAX = 1.5
MIGRATION_SECONDS_MAX = 24 * 60 * 60
TABLE_WAIT_SECONDS_MAX = 2
LOCK_SECONDS_MAX = 0.25
"""How long a poll waits for the write lock of SQLite."""
_BUSY_SECONDS = 0.01
WRITE = "pdp_write"
"""Execution option of a connection whose next transaction writes."""

_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
}
_FOREIGN_KEY_CODES = ("23503", "787")  # PostgreSQL's SQLSTATE, SQLite's extended result code
_NO_TABLE_CODES = ("42P01", "42703")  # no such table, no such column
_READ_ONLY = ("25006", "session is read-only", "server is in hot standby mode")


def database_name(url: str) -> str:
    """Returns the database of a URL for messages, without password and other secrets.

    Raises:
        ValueError: As `open_engine`.
    """
    parsed = _parse(url)
    if parsed.drivername.startswith("sqlite"):
        return f"sqlite:///{Path(parsed.database or '').absolute()}"
    hosts = parsed.query.get("host", ())
    named = hosts if isinstance(hosts, str) else ",".join(hosts)
    host = named or (parsed.host or "") + (f":{parsed.port}" if parsed.port else "")
    user = f"{parsed.username}@" if parsed.username else ""
    return f"postgresql://{user}{host}/{parsed.database or ''}"


def open_engine(url: str) -> Engine:
    """Opens `sqlite:///<file>` or `postgresql://...`; connects when first used.

    Call it in the process that uses it: connections do not survive a fork.

    Raises:
        ValueError: It is neither (the message does not repeat the URL).
    """
    parsed = _parse(url)
    is_sqlite = parsed.drivername.startswith("sqlite")
    return _open_sqlite(parsed) if is_sqlite else _open_postgresql(parsed)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: the port is not a number
        raise ValueError("the database URL cannot be read") from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ValueError("the database URL must start with sqlite:/// or postgresql://")
    return parsed.set(drivername=driver)


def _open_sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        # A database in memory belongs to one connection; every thread would see its own.
        raise ValueError("the SQLite database must be a file: sqlite:///pdp.db")
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": STATEMENT_SECONDS_MAX},
        pool_size=POOL_CONNECTIONS_MAX,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS_MAX,
    )

    lock = threading.Lock()

    def connecting(*_: object) -> None:
        with lock:
            _make_private(Path(url.database or ""))

    def connected(connection: sqlite3.Connection, _record: object) -> None:
        # The driver would begin transactions late and implicitly: `begun` sends BEGIN.
        connection.isolation_level = None
        cursor = connection.cursor()
        _enable_write_ahead_log(cursor)
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    def begun(connection: Connection) -> None:
        # A writer takes the lock at once: if it read first, it could fail to write later.
        write = connection.get_execution_options().get(WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    event.listen(engine, "do_connect", connecting)
    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine


def _make_private(file: Path) -> None:
    """Creates the file for its owner only, whatever the umask. If it exists, removes the rights of
    others. SQLite gives `-wal` and `-shm` the mode of the file itself."""
    with contextlib.suppress(OSError):  # SQLite reports why it cannot be opened
        made = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.fchmod(made, 0o600)
        os.close(made)
    for suffix in ("", "-wal", "-shm"):
        path = file.with_name(file.name + suffix)
        try:
            # By name: to close a descriptor of the file would release SQLite's locks on it.
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                path.chmod(mode & 0o700)
                log.warning("database_file_made_private", file=str(path), mode=f"{mode:04o}")
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("database_file_not_private", file=str(path), errno=error.errno)


def _enable_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    # On a new file, SQLite does not wait: concurrent switches to WAL fail at once with "busy".
    deadline = time.monotonic() + STATEMENT_SECONDS_MAX
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_SECONDS)


class _Connection(psycopg.Connection[Any]):
    """A connection that closes if the server is silent for `silence_seconds_max`.

    The network may be cut, or a proxy may acknowledge everything and forward nothing.
    """

    silence_seconds_max: float = SILENCE_SECONDS_MAX

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        ends_at = time.monotonic() + self.silence_seconds_max
        try:
            return super().wait(gen, interval, self.silence_seconds_max)
        except psycopg.OperationalError:
            if time.monotonic() >= ends_at:
                self.pgconn.finish()
            raise


def _open_postgresql(url: URL) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args={
            "connect_timeout": CONNECT_SECONDS_MAX,
            "client_encoding": "utf8",
            "application_name": "pdp",
            # Of several hosts, the primary: a standby may lag by any time.
            "target_session_attrs": "read-write",
            # A server that vanished must not block a thread for minutes.
            "tcp_user_timeout": STATEMENT_SECONDS_MAX * 1000,
            "keepalives_idle": STATEMENT_SECONDS_MAX,
            "keepalives_interval": 1,
            "keepalives_count": STATEMENT_SECONDS_MAX,
        },
        pool_size=POOL_CONNECTIONS_MAX,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS_MAX,
    )

    def connected(connection: psycopg.Connection, _record: object) -> None:
        # By statements: connection poolers refuse startup options. Outside a transaction: a
        # rollback would undo them.
        connection.autocommit = True
        connection.execute(f"SET statement_timeout = {STATEMENT_SECONDS_MAX * 1000}")
        connection.execute("SET idle_in_transaction_session_timeout = '60s'")
        connection.autocommit = False

    # Otherwise connections would have the driver's own class.
    engine.dialect.connect = _Connection.connect  # type: ignore[method-assign,assignment]
    event.listen(engine, "connect", connected)
    return engine


@contextmanager
def begin_read(engine: Engine) -> Iterator[Connection]:
    """Begins a read-only transaction in which every statement sees the same snapshot.

    Raises:
        DatabaseUnavailable: The database cannot be reached or does not answer in time.
    """
    with database_errors(), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        with connection.begin():
            yield connection


@contextmanager
def begin_write(engine: Engine) -> Iterator[Connection]:
    """Begins a transaction that writes; commits if the block ends, rolls back if it raises.

    Raises:
        DatabaseUnavailable: The database cannot be reached, is busy, or does not answer in time.
    """
    with connect_to_write(engine) as connection, connection.begin():
        yield connection


@contextmanager
def connect_to_write(engine: Engine) -> Iterator[Connection]:
    """Opens a connection whose transactions write.

    Raises:
        DatabaseUnavailable: The database cannot be reached, is busy, or does not answer in time.
    """
    with database_errors(), engine.connect() as connection:
        connection.execution_options(**{WRITE: True})
        yield connection


def connect_to_poll(engine: Engine) -> Connection:
    """Opens a connection for `begin_poll`, outside the pool, which requests can exhaust.

    Raises:
        SQLAlchemyError: See `database_errors`.
    """
    connection = engine.connect()
    if engine.dialect.name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ")
        connection.exec_driver_sql(f"SET statement_timeout = {POLL_SECONDS_MAX * 1000}")
        connection.commit()
    else:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(LOCK_SECONDS_MAX * 1000)}")
        connection.rollback()
    connection.detach()
    return connection


@contextmanager
def begin_poll(connection: Connection, *, write: bool = False) -> Iterator[None]:
    """Begins a short transaction in which every statement sees the same snapshot.

    It waits neither for a lock nor for a silent server: polls repeat.

    Raises:
        SQLAlchemyError: See `database_errors`.
    """
    connection.execution_options(**{WRITE: write})
    _set_silence_limit(connection, POLL_SILENCE_SECONDS_MAX)
    with connection.begin():
        yield


def allow_long_statements(connection: Connection) -> None:
    """Gives the rest of a transaction of `begin_poll` the usual timeouts.

    Raises:
        SQLAlchemyError: See `database_errors`.
    """
    if connection.dialect.name == "postgresql":
        milliseconds = STATEMENT_SECONDS_MAX * 1000
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
    _set_silence_limit(connection, SILENCE_SECONDS_MAX)


@contextmanager
def extended_timeouts(connection: Connection) -> Iterator[None]:
    """Allows the statements of a block MIGRATION_SECONDS_MAX, to build an index of a large table.

    The wait for a table lock stays short: readers of the table would queue behind it.

    Raises:
        SQLAlchemyError: See `database_errors`.
    """
    if connection.dialect.name == "postgresql":
        milliseconds = MIGRATION_SECONDS_MAX * 1000
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {TABLE_WAIT_SECONDS_MAX * 1000}")
    _set_silence_limit(connection, MIGRATION_SECONDS_MAX)
    try:
        yield
    finally:
        _set_silence_limit(connection, SILENCE_SECONDS_MAX)


def _set_silence_limit(connection: Connection, seconds: float) -> None:
    driver: object = connection.connection.dbapi_connection
    if isinstance(driver, _Connection):
        driver.silence_seconds_max = seconds


def announce(connection: Connection, channel: str) -> None:
    """Notifies the listeners of a channel. Does nothing on SQLite.

    Call it outside a transaction: NOTIFY could make the commit fail (its queue is full) or wait
    (one lock for the whole server).

    Raises:
        DatabaseUnavailable: The notification was not sent.
    """
    if connection.dialect.name != "postgresql":
        return
    milliseconds = int(ANNOUNCE_SECONDS_MAX * 1000)
    with database_errors():
        connection.execution_options(isolation_level="AUTOCOMMIT")
        # The commit waits for the lock, and `statement_timeout` does not limit that.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds}; NOTIFY {channel}")


@contextmanager
def listening(engine: Engine, channel: str) -> Iterator[Callable[[float], bool]]:
    """Listens on a channel of PostgreSQL, with its own connection.

    Yields:
        A function that waits up to the given seconds and returns whether a notification came.

    Raises:
        DatabaseUnavailable: The database cannot be reached, refuses, or is lost.
    """
    with database_errors():
        pooled = engine.raw_connection()
        connection = cast(psycopg.Connection, pooled.driver_connection)
        pooled.detach()
        with closing(connection):
            connection.autocommit = True
            connection.execute(f"LISTEN {channel}")
            yield lambda seconds: bool(list(connection.notifies(timeout=seconds, stop_after=1)))


@contextmanager
def database_errors() -> Iterator[None]:
    """Converts errors of SQLAlchemy and the drivers to `errors.DatabaseUnavailable`."""
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        # From None: a traceback would print the text of the driver.
        raise _unavailable(error) from None


def breaks_reference(error: SQLAlchemyError) -> bool:
    """Returns whether a foreign key refused the statement."""
    return isinstance(error, IntegrityError) and _code(error) in _FOREIGN_KEY_CODES


def _unavailable(error: Exception) -> DatabaseUnavailable:
    code = _code(error)
    if code in _NO_TABLE_CODES or "no such table" in str(getattr(error, "orig", "")):
        return DatabaseUnavailable("the database lacks tables of this version: run `pdp migrate`")
    if code in _READ_ONLY or any(marker in str(error) for marker in _READ_ONLY):
        return DatabaseUnavailable("the database server takes no writes: a standby, or read-only")
    name = type(error).__name__ + (f" {code}" if code else "")
    condition = condition_of(getattr(error, "orig", error), code)
    if isinstance(error, PoolTimeoutError):
        condition = "all connections of this process are in use"
    if condition is None:
        return DatabaseUnavailable(f"the database does not answer ({name})")
    return DatabaseUnavailable(f"the database does not answer: {condition} ({name})")


def _code(error: Exception) -> str:
    original = getattr(error, "orig", error)
    code = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorcode", None)
    return str(code) if code else ""
