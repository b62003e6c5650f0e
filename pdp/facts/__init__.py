"""Room 3: SQL -> facts at one revision."""

from pdp.facts.changes import Change, ChangeKind
from pdp.facts.store import Reader, Store, Transaction
from pdp.migrations import migrate

__all__ = ["Change", "ChangeKind", "Reader", "Store", "Transaction", "migrate"]
