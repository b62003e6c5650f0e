"""Folds equal denials into one record with a count.

Denials are equal if all fields except id and time are equal. The first one is written as a record.
Those that follow within FOLD_SECONDS share its decision id, and a small count frame in the same log
states how often the record has occurred. The count is synced before any of them is answered.
"""

from dataclasses import dataclass
from typing import Final

FOLD_SECONDS: Final = 10.0
FOLDS_MAX: Final = 10_000
"""Records that accept folds at a time; about 300 bytes of memory each."""


@dataclass(slots=True)
class Fold:
    """A record that accepts equal denials."""

    decision_id: str
    last_decided_at: float
    ends_at: float
    """Monotonic seconds."""
    occurrences: int = 1


class Folds:
    """The records of one log that accept equal denials. For one thread."""

    def __init__(self, log_id: str) -> None:
        self.log_id: Final = log_id
        # Two generations: to drop a whole one is cheaper than to drop single records.
        self._young: dict[bytes, Fold] = {}
        self._old: dict[bytes, Fold] = {}
        self._young_until = 0.0

    def find(self, key: bytes, now: float) -> Fold | None:
        """Returns the record of this key if it accepts denials at `now` (monotonic seconds)."""
        fold = self._young.get(key) or self._old.get(key)
        return fold if fold is not None and now < fold.ends_at else None

    def begin(self, key: bytes, decision_id: str, decided_at: float, now: float) -> None:
        """Adds a record that accepts denials of this key from now on."""
        if now >= self._young_until or len(self._young) >= FOLDS_MAX // 2:
            self._old, self._young = self._young, {}
            self._young_until = now + FOLD_SECONDS
        self._young[key] = Fold(decision_id, decided_at, now + FOLD_SECONDS)
