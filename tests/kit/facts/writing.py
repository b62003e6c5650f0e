"""Writes to a store, and replicas that read them only when a test wakes them."""

from pdp.facts import Store

NEVER = 3_600.0
"""A poll interval in seconds: only `poke` wakes the replica."""


def write(store: Store, *entities) -> int:
    """Writes entities in one transaction; its revision."""
    with store.write() as transaction:
        transaction.apply_many(entities)
    return transaction.revision
