"""Opens the transactions of the database of policy and facts."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy import Connection, Engine

from pdp.administration_records import UNNAMED, Author
from pdp.database.engine import announce, begin_read, connect_to_write
from pdp.errors import DatabaseUnavailable
from pdp.facts.store.changelog import CHANNEL
from pdp.facts.store.reader import Reader
from pdp.facts.store.transaction import Transaction

log = structlog.get_logger(__name__)


class Store:
    """Access to the database of policy and facts."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._announce_fails = False

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """Begins a read-only transaction at one revision.

        Raises:
            DatabaseUnavailable: The database cannot be reached or does not answer in time.
        """
        with begin_read(self.engine) as connection:
            yield Reader(connection)

    @contextmanager
    def write(self, author: Author = UNNAMED) -> Iterator[Transaction]:
        """Begins a transaction that writes. It commits if the block ends without an error. Writers
        wait for each other.

        Args:
            author: The author of the changes, for the administration records. Not
                needed if it changes nothing that decisions read.

        Raises:
            DatabaseUnavailable: The database cannot be reached, is busy, or does not answer in
                time. The write may nevertheless have been committed.
        """
        with connect_to_write(self.engine) as connection:
            with connection.begin():
                transaction = Transaction(connection, author)
                yield transaction
                committing = transaction.finish()
                if not committing:
                    connection.rollback()
            if committing and transaction.raises_revision:
                self._announce(connection)

    def _announce(self, connection: Connection) -> None:
        """Wakes the replicas. A failure does not matter to the write: polling finds it."""
        try:
            announce(connection, CHANNEL)
        except DatabaseUnavailable as error:
            if not self._announce_fails:
                log.warning("changes_not_announced", error=error.message)
            self._announce_fails = True
        else:
            if self._announce_fails:
                log.info("changes_announced_again")
            self._announce_fails = False
