"""What the decision log gets of a ruling: which decisions, and what they read."""

from collections.abc import Iterator, Sequence

from pdp.audit import DecisionRecord, Recorder, build_records
from pdp.decision import Principal
from pdp.impact import Redaction, inputs_of
from pdp.model import Decision, Effect, HttpRequest, Question, ResourceFacts
from pdp.ruling import Ruling


class Recording:
    """Records every denial, and allows if they are wanted. Has no state of its own."""

    def __init__(
        self, recorder: Recorder, *, allows: bool = False, redaction: Redaction | None = None
    ) -> None:
        """Joins the log and what is wanted in it.

        Args:
            recorder: Writes the log.
            allows: Whether allows are recorded too.
            redaction: Removes secrets from recorded inputs; None: inputs are not recorded.
        """
        self.with_inputs = redaction is not None
        """Whether what a decision read is recorded."""
        self._recorder = recorder
        self._allows = allows
        self._redaction = redaction

    def inputs(
        self,
        principal: Principal,
        question: Question,
        chain: tuple[ResourceFacts, ...],
        decision: Decision,
    ) -> str:
        """What the decision read, as JSON; empty if that is not recorded."""
        if self._redaction is None or not (self._allows or decision.effect is Effect.DENY):
            return ""
        return inputs_of(principal, question, chain, self._redaction)

    async def write(
        self,
        ruling: Ruling,
        questions: Sequence[Question],
        caller: str,
        request: HttpRequest | None = None,
        *,
        await_allows: bool = False,
    ) -> Ruling:
        """Returns after every denial is in the log. Equal denials share a record: the returned
        ruling has the ids under which its denials are in the log.

        `await_allows`: allows are recorded in any case, and as surely as denials.

        Raises:
            errors.AuditUnavailable: The denials are not in the log.
            errors.ShareExceeded: The caller has used up its share of the log.
        """
        effects = {decision.effect for decision in ruling.decisions}
        if Effect.ALLOW in effects and (await_allows or self._allows):
            allows = _records(ruling, Effect.ALLOW, questions, caller, request)
            if await_allows:
                await self._recorder.record(allows)
            else:
                await self._recorder.try_write(allows)
        if Effect.DENY in effects:
            denials = _records(ruling, Effect.DENY, questions, caller, request)
            ruling = _with_ids(ruling, await self._recorder.record(denials))
        return ruling


def _records(
    ruling: Ruling,
    effect: Effect,
    questions: Sequence[Question],
    caller: str,
    request: HttpRequest | None,
) -> Iterator[DecisionRecord]:
    return build_records(
        effect,
        ruling.token,
        questions,
        ruling.decisions,
        ruling.decision_ids,
        caller=caller,
        revision=ruling.revision,
        decided_at=ruling.decided_at,
        request=request,
        inputs=ruling.inputs,
    )


def _with_ids(ruling: Ruling, ids: Sequence[str]) -> Ruling:
    """The same with the ids of its denials, in order."""
    denied = iter(ids)
    decision_ids = [
        next(denied) if decision.effect is Effect.DENY else decision_id
        for decision, decision_id in zip(ruling.decisions, ruling.decision_ids, strict=True)
    ]
    return ruling._replace(decision_ids=decision_ids)
