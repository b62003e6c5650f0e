"""The outcome of a request: a decision on each of its questions."""

from collections.abc import Sequence
from typing import NamedTuple

from pdp.facts import View
from pdp.model import Decision, RefusedToken, VerifiedToken


class Ruling(NamedTuple):
    """The decisions on the questions of an actor. Its denials are in the audit log."""

    token: VerifiedToken | RefusedToken
    decisions: Sequence[Decision]
    """decisions[i] answers questions[i]."""
    decision_ids: Sequence[str]
    revision: int
    decided_at: float
    """Seconds since 1970-01-01 UTC."""
    view: View | None
    """The facts that were read; None: the token was refused before any fact was read."""
    inputs: Sequence[str] = ()
    """inputs[i] is what decisions[i] read, if that is recorded; otherwise empty."""
