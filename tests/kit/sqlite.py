"""SQLite files that are migrated and empty. They are copied: to migrate one takes 300 ms."""

import atexit
import functools
import os
import shutil
import sqlite3
import tempfile
import uuid
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from pdp.database.migrations import migrate

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For a test that asks for `engine`, and to whose subject it cannot matter which one it is."""


@event.listens_for(Engine, "connect")
def _never_sync(connection: object, _record: object) -> None:
    """Nothing in a file outlives the run: no commit of a test waits for the disk."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


def make_sqlite(file: Path) -> None:
    """Makes a migrated, empty database, which is another one than those made before."""
    shutil.copy(_template(), file)
    with sqlite3.connect(file) as connection:
        connection.execute(
            "UPDATE state SET epoch = ?, page_secret = ?", (uuid.uuid4().hex, os.urandom(32))
        )
    connection.close()


@functools.cache
def _template() -> Path:
    directory = tempfile.mkdtemp(prefix="pdp-sqlite-")
    atexit.register(shutil.rmtree, directory)
    file = Path(directory, "template.db")
    migrate(f"sqlite:///{file}")
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return file
