"""Folds equal denials: one record, and how often it has occurred.

Denials are equal when all of their fields but id and time are. The first is written whole. Those
that follow within FOLD_SECONDS take its decision id, and a small frame of the same log says how
often the record has occurred by now. That frame is synced before any of them is answered.
"""

from dataclasses import dataclass
from typing import Final

FOLD_SECONDS: Final = 10.0
FOLDS_MAX: Final = 10_000
"""Records that can be folded into at one time; about 300 bytes of memory each."""


@dataclass(slots=True)
class Fold:
    """A record that equal denials are folded into."""

    decision_id: str
    last_decided_at: float
    ends_at: float
    """Monotonic seconds."""
    occurrences: int = 1


class Folds:
    """The records of one log that can be folded into. For one thread."""

    def __init__(self, log_id: str) -> None:
        self.log_id: Final = log_id
        # Two generations: whole ones are forgotten, which costs less than one record at a time.
        self._young: dict[bytes, Fold] = {}
        self._old: dict[bytes, Fold] = {}
        self._young_until = 0.0

    def find(self, key: bytes, now: float) -> Fold | None:
        """The record of this key, if it still takes denials at `now` (monotonic seconds)."""
        fold = self._young.get(key) or self._old.get(key)
        return fold if fold is not None and now < fold.ends_at else None

    def begin(self, key: bytes, decision_id: str, decided_at: float, now: float) -> None:
        """Lets denials of this key be folded into a record that is written now."""
        if now >= self._young_until or len(self._young) >= FOLDS_MAX // 2:
            self._old, self._young = self._young, {}
            self._young_until = now + FOLD_SECONDS
        self._young[key] = Fold(decision_id, decided_at, now + FOLD_SECONDS)
