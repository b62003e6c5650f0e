"""Revisions numbered by a sequence, in all of a process: see `tests/kit/facts/sequences.py`."""

import random
import time
from collections.abc import Mapping, Sequence

from pdp.facts.store.changelog import Change
from pdp.facts.store.reader import Reader
from pdp.facts.store.transaction import Transaction
from tests.kit.facts import sequences

COMMIT_SECONDS_MAX = 0.5


def number_by_sequence() -> None:
    """From now on in this process."""
    changes = Reader.changes
    finish = Transaction.finish

    def finish_late(self: Transaction) -> bool:
        committing = finish(self)
        time.sleep(random.uniform(0, COMMIT_SECONDS_MAX))
        sequences.announce(self)
        return committing

    def changes_with_gaps(self: Reader, after: int) -> Mapping[int, Sequence[Change]]:
        found = changes(self, after)
        return {number: found.get(number, ()) for number in range(after + 1, self.revision + 1)}

    Transaction.__init__ = sequences.begin  # type: ignore[method-assign]
    Transaction.finish = finish_late  # type: ignore[method-assign]
    Reader.changes = changes_with_gaps  # type: ignore[method-assign]
