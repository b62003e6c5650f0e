"""Revisions as one would number them without thinking: by a sequence, and without the row's lock.

Who took the lower number may commit later, and who has seen 11 never looks for the 10: numbers that
are missing mean nothing, because a transaction that is rolled back leaves one out too.
"""

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, text, update

from pdp.facts.store import tables
from pdp.facts.store.changelog import Change
from pdp.facts.store.state import read_state
from pdp.facts.store.store import Reader, Transaction

SEQUENCE = "out_of_order"
COMMIT_SECONDS_MAX = 0.5


def create_sequence(connection: Connection) -> None:
    """Once in a database, before processes number by it."""
    connection.execute(text(f"CREATE SEQUENCE {SEQUENCE}"))


def number_by_sequence() -> None:
    """From now on in this process."""
    state = tables.state
    changes = Reader.changes
    finish = Transaction.finish

    def begin(self: Any, connection: Connection) -> None:
        self.connection = connection
        self.state = read_state(connection)
        self.epoch = self.state.epoch
        self._revision = connection.execute(text(f"SELECT nextval('{SEQUENCE}')")).scalar_one()
        self._changes = {}
        self._kept = self._abandoned = self._failed = False

    def finish_late(self: Transaction) -> bool:
        committing = finish(self)
        time.sleep(random.uniform(0, COMMIT_SECONDS_MAX))
        newest = func.greatest(state.c.revision, self._revision)
        self.connection.execute(update(state).values(revision=newest))
        return committing

    def changes_with_gaps(self: Reader, after: int) -> Mapping[int, Sequence[Change]]:
        found = changes(self, after)
        return {number: found.get(number, ()) for number in range(after + 1, self.revision + 1)}

    Transaction.__init__ = begin  # type: ignore[method-assign]
    Transaction.finish = finish_late  # type: ignore[method-assign]
    Reader.changes = changes_with_gaps  # type: ignore[method-assign]
