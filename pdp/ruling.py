"""The outcome of a request: a decision on each of its questions, and their records."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pdp.audit import DecisionRecord, build_records
from pdp.facts import View
from pdp.model import Decision, Effect, HttpRequest, Question, RefusedToken, VerifiedToken


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

    def records(
        self,
        effect: Effect,
        questions: Sequence[Question],
        caller: str,
        request: HttpRequest | None,
    ) -> Iterator[DecisionRecord]:
        """The records of the decisions with this effect, in order; see `build_records`."""
        return build_records(
            effect,
            self.token,
            questions,
            self.decisions,
            self.decision_ids,
            caller=caller,
            revision=self.revision,
            decided_at=self.decided_at,
            request=request,
            inputs=self.inputs,
        )

    def with_ids(self, ids: Sequence[str]) -> "Ruling":
        """The same with the ids under which its denials are in the log: equal denials share a
        record."""
        denied = iter(ids)
        decision_ids = [
            next(denied) if decision.effect is Effect.DENY else decision_id
            for decision, decision_id in zip(self.decisions, self.decision_ids, strict=True)
        ]
        return self._replace(decision_ids=decision_ids)
