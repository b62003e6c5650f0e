"""Opens SQL databases and translates their errors.

Used by `facts`, `audit` and `migrations`. No text of a driver and no part of the URL leaves this
module: messages hold only the class of the error and its SQLSTATE.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import psycopg
from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pdp.database.conditions import condition_of
from pdp.database.postgresql import open_postgresql, set_silence_limit
from pdp.database.sqlite import WRITE, open_sqlite
from pdp.database.timeouts import (
    ANNOUNCE_SECONDS_MAX,
    LOCK_SECONDS_MAX,
    MIGRATION_SECONDS_MAX,
    POLL_SECONDS_MAX,
    POLL_SILENCE_SECONDS_MAX,
    SILENCE_SECONDS_MAX,
    STATEMENT_SECONDS_MAX,
    TABLE_WAIT_SECONDS_MAX,
)
from pdp.errors import DatabaseUnavailable

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
    return open_sqlite(parsed) if is_sqlite else open_postgresql(parsed)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: the port is not a number
        raise ValueError("the database URL cannot be read") from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ValueError("the database URL must start with sqlite:/// or postgresql://")
    return parsed.set(drivername=driver)


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
    set_silence_limit(connection, POLL_SILENCE_SECONDS_MAX)
    with connection.begin():
        yield


def lock_table(connection: Connection, table: str) -> None:
    """Waits for others that have called this for the table; they wait until this transaction ends.

    Readers do not wait. On SQLite, the write lock is already held.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")


def overwrite_deleted(connection: Connection) -> None:
    """Lets SQLite overwrite what this connection deletes: free pages would keep it."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")


def allow_long_statements(connection: Connection) -> None:
    """Gives the rest of a transaction of `begin_poll` the usual timeouts.

    Raises:
        SQLAlchemyError: See `database_errors`.
    """
    if connection.dialect.name == "postgresql":
        milliseconds = STATEMENT_SECONDS_MAX * 1000
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
    set_silence_limit(connection, SILENCE_SECONDS_MAX)


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
    set_silence_limit(connection, MIGRATION_SECONDS_MAX)
    try:
        yield
    finally:
        set_silence_limit(connection, SILENCE_SECONDS_MAX)


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
