"""Revisions numbered by a sequence of the database, without the lock on one row.

That is wrong: a transaction with a lower number may commit later, and a reader that has seen 11
never looks for the 10. Missing numbers mean nothing, because a rollback leaves one out too. Tests
use it as a control, to show that they would notice.
"""

from typing import Any

from sqlalchemy import Connection, func, text, update

from pdp.administration_records import UNNAMED, Author
from pdp.facts.store import tables
from pdp.facts.store.reader import Reader
from pdp.facts.store.transaction import Transaction

SEQUENCE = "out_of_order"


def create_sequence(connection: Connection) -> None:
    """Call once for a database, before processes number by it."""
    connection.execute(text(f"CREATE SEQUENCE {SEQUENCE}"))


def begin(self: Any, connection: Connection, author: Author = UNNAMED) -> None:
    """Takes the place of `Transaction.__init__`: the number comes from the sequence."""
    Reader.__init__(self, connection)
    self._revision = connection.execute(text(f"SELECT nextval('{SEQUENCE}')")).scalar_one()
    self._begin(author)


def announce(transaction: Transaction) -> None:
    """Makes the number of a transaction the current revision, unless a later one is already."""
    state = tables.state
    newest = func.greatest(state.c.revision, transaction.revision)
    transaction.connection.execute(update(state).values(revision=newest))
