"""Revisions as one would number them without thinking: by a sequence, and without the row's lock.

Who took the lower number may commit later, and who has seen 11 never looks for the 10: numbers that
are missing mean nothing, because a transaction that is rolled back leaves one out too.
"""

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, text

from pdp.facts import tables
from pdp.facts.changes import Change
from pdp.facts.store import Reader, Transaction

SEQUENCE = "out_of_order"
COMMIT_SECONDS_MAX = 0.5


def create_sequence(connection: Connection) -> None:
    """Once in a database, before processes number by it."""
    connection.execute(text(f"CREATE SEQUENCE {SEQUENCE} START 1000"))


def number_by_sequence() -> None:
    """From now on in this process."""

    def begin(self: Any, connection: Connection) -> None:
        self.connection = connection
        self.epoch = connection.execute(select(tables.state.c.epoch)).scalar_one()
        self._revision = connection.execute(text(f"SELECT nextval('{SEQUENCE}')")).scalar_one()
        self._changes = {}
        self._kept = self._abandoned = self._failed = False

    def changes_with_gaps(self: Reader, after: int) -> Mapping[int, Sequence[Change]]:
        found = changes(self, after)
        return {number: found.get(number, ()) for number in range(after + 1, self.revision + 1)}

    changes = Reader.changes
    read = Reader.__init__
    finish = Transaction.finish

    def begin_to_read(self: Any, connection: Connection) -> None:
        read(self, connection)
        newest = select(func.max(tables.changes.c.revision))
        self._revision = max(self._revision, connection.execute(newest).scalar_one() or 0)

    def finish_late(self: Transaction) -> bool:
        committing = finish(self)
        time.sleep(random.uniform(0, COMMIT_SECONDS_MAX))
        return committing

    Transaction.__init__ = begin  # type: ignore[method-assign]
    Reader.changes = changes_with_gaps  # type: ignore[method-assign]
    Reader.__init__ = begin_to_read  # type: ignore[method-assign]
    Transaction.finish = finish_late  # type: ignore[method-assign]
