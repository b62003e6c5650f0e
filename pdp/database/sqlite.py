"""Opens SQLite files."""

import contextlib
import os
import sqlite3
import stat
import threading
import time
from pathlib import Path

import structlog
from sqlalchemy import URL, Connection, Engine, create_engine, event

from pdp.database.timeouts import CONNECT_SECONDS_MAX, POOL_CONNECTIONS_MAX, STATEMENT_SECONDS_MAX

log = structlog.get_logger(__name__)

WRITE = "pdp_write"
"""Execution option of a connection whose next transaction writes."""
_BUSY_SECONDS = 0.01


def open_sqlite(url: URL) -> Engine:
    """Opens a file; creates it, for its owner only, when first used.

    Raises:
        ValueError: The URL names no file.
    """
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
