"""The corridor: identity -> facts -> decision -> audit. The way of a request, in one function.

Three outcomes that never mix: a `Ruling` (allow or deny), a typed error of `errors.py` (there is no
answer), or a bug. An error is never an allow: nothing here catches one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pdp.audit import Recorder, new_decision_id
from pdp.clock import Clock
from pdp.decision import decide, prepare
from pdp.errors import MustWait
from pdp.facts import Replica, View
from pdp.identity import Verifier
from pdp.model import (
    Actor,
    Decision,
    DecisionRecord,
    Effect,
    Question,
    RefusedToken,
    ResourceRef,
    UserFacts,
    UserStatus,
    VerifiedToken,
)

Provision = Callable[[VerifiedToken], int]
"""Writes down whom a token proves, as far as nobody has spoken of them before. Returns a revision
that holds what came of it. Raises `errors.Unavailable`."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """The answers to the questions of one actor."""

    token: VerifiedToken | RefusedToken
    decisions: Sequence[Decision]
    """decisions[i] answers questions[i]."""
    decision_ids: Sequence[str]
    revision: int
    decided_at: float
    """Seconds since 1970-01-01 UTC."""
    view: View | None
    """What was read; None where the token was refused: no fact was read, so none can be stale."""
    unrecorded: Sequence[DecisionRecord] = ()
    """Denials that are not on record yet. While there are any, this is not an answer."""


class Authorizer:
    """Answers questions. Thread-safe: it keeps no state of its own."""

    def __init__(
        self,
        verifier: Verifier,
        replica: Replica,
        recorder: Recorder,
        *,
        clock: Clock,
        record_allows: bool,
        provision: Provision | None = None,
    ) -> None:
        self._verifier = verifier
        self._replica = replica
        self._recorder = recorder
        self._clock = clock
        self._record_allows = record_allows
        self._provision = provision

    def rule(
        self,
        token_text: str,
        questions: Sequence[Question],
        caller: str,
        at_least_revision: int = 0,
        *,
        wait: bool = True,
    ) -> Ruling:
        """Answers all questions at one revision; returns once every denial is on record.

        Without `wait` it returns at once, and denials are left to `settle`.

        Raises `errors.Unavailable` (keys, database, freshness, revision or audit out of reach), and
        without `wait` MustWait where an answer needs what is not in memory.
        """
        token = self._verifier.verify(token_text, wait=wait)
        now = self._clock()
        ids = [new_decision_id() for _ in questions]
        if isinstance(token, RefusedToken):
            refusals = [Decision(Effect.DENY, token.reason)] * len(questions)
            ruling = Ruling(token, refusals, ids, self._replica.revision, now, None)
        else:
            view = self._view(token, questions, at_least_revision, wait=wait)
            standing = prepare(view.policy, token, view.user, view.organization, now)
            decisions = [
                decide(standing, question, chain)
                for question, chain in zip(questions, view.chains, strict=True)
            ]
            ruling = Ruling(token, decisions, ids, view.revision, now, view)
        denials = self._records_to_sync(ruling, questions, caller, now)
        if denials and not wait:
            return replace(ruling, unrecorded=denials)
        self._recorder.record(denials)
        self._confirm(ruling)
        return ruling

    async def settle(self, ruling: Ruling) -> None:
        """The end of the way of a ruling that did not wait: returns once its denials are on record.

        Raises `errors.Unavailable`.
        """
        await self._recorder.record_from_loop(ruling.unrecorded)
        self._confirm(ruling)

    def _view(
        self,
        token: VerifiedToken,
        questions: Sequence[Question],
        at_least_revision: int,
        *,
        wait: bool,
    ) -> View:
        """The facts. Of an actor whom they do not know, once that was provisioned, where it is."""
        actor = token.actor
        resources = [question.resource for question in questions]
        view = self._replica.view(
            actor.user_id, actor.organization_id, resources, at_least_revision, wait=wait
        )
        if self._provision is None or not _is_new(actor, view.user):
            return view
        if not wait:
            raise MustWait
        revision = max(at_least_revision, self._provision(token))
        return self._replica.view(actor.user_id, actor.organization_id, resources, revision)

    def _confirm(self, ruling: Ruling) -> None:
        # Last, so that no pause between reading the facts and answering goes unnoticed.
        if ruling.view is not None:
            self._replica.confirm(ruling.view)

    def _records_to_sync(
        self, ruling: Ruling, questions: Sequence[Question], caller: str, now: float
    ) -> Sequence[DecisionRecord]:
        effects = {decision.effect for decision in ruling.decisions}
        if self._record_allows and Effect.ALLOW in effects:
            self._recorder.offer(_records(ruling, questions, caller, now, Effect.ALLOW))
        if Effect.DENY not in effects:
            return ()
        return _records(ruling, questions, caller, now, Effect.DENY)


def _is_new(actor: Actor, user: UserFacts | None) -> bool:
    """Whether a token may prove of the actor what the database does not know: not of who is
    disabled, nor for a session that was revoked."""
    if user is None:
        return True
    return (
        actor.organization_id is not None
        and actor.organization_id not in user.memberships
        and user.user.status is UserStatus.ACTIVE
        and actor.session_id not in user.revoked_sessions
    )


def _records(
    ruling: Ruling, questions: Sequence[Question], caller: str, now: float, effect: Effect
) -> list[DecisionRecord]:
    token = ruling.token
    records = []
    for question, decision, decision_id in zip(
        questions, ruling.decisions, ruling.decision_ids, strict=True
    ):
        if decision.effect is not effect:
            continue
        resource = question.resource
        records.append(
            DecisionRecord(
                decision_id=decision_id,
                decided_at=now,
                effect=effect,
                reason=decision.reason,
                permission=question.permission,
                caller=caller,
                revision=ruling.revision,
                token_fingerprint=token.fingerprint,
                actor=token.actor,
                token_id=token.token_id,
                resource=None if resource is None else ResourceRef(resource.type, resource.id),
                resource_organization_id=decision.resource_organization_id,
                rule_id=decision.rule_id,
                grant_id=decision.grant_id,
            )
        )
    return records
