"""The way of a request: verify the token, gather facts, decide, record, confirm.

Three outcomes that never mix: a `Ruling` (allow or deny), a typed error of `errors.py` (there is no
answer), or a bug. An error is never an allow: nothing here catches one.

An `await` suspends only if something has to be waited for: a key set, the database, the audit log.
What is in memory is answered in one go.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from pdp.audit import Recorder, build_records, new_decision_id
from pdp.clock import Clock
from pdp.concurrency.pacing import Pace
from pdp.decision import decide, prepare, target_of, with_step_up
from pdp.errors import FactsStale
from pdp.facts import Replica, View
from pdp.identity import Verifier
from pdp.impact import Redaction, inputs_of
from pdp.model import (
    Actor,
    Decision,
    DecisionRecord,
    Effect,
    HttpRequest,
    Question,
    Reason,
    RefusedToken,
    Resource,
    UserFacts,
    UserStatus,
    VerifiedToken,
)

Provision = Callable[[VerifiedToken], Awaitable[int]]
"""Creates the user, organization and membership named in a verified token, unless Clerk has already
reported them. Returns a revision at which that is stored. Raises `errors.Unavailable`."""

Offer = Callable[[VerifiedToken, View, Sequence[Question], Sequence[Decision], float], None]
"""Takes the decisions of one request and their time. Never waits, never raises."""

ROUTING_ATTEMPTS_MAX = 3


class Ruling(NamedTuple):
    """The answers to the questions of one actor. Its denials are in the audit log."""

    token: VerifiedToken | RefusedToken
    decisions: Sequence[Decision]
    """decisions[i] answers questions[i]."""
    decision_ids: Sequence[str]
    revision: int
    decided_at: float
    """Seconds since 1970-01-01 UTC."""
    view: View | None
    """The facts that were read; None if the token was refused, for then no fact was read."""
    inputs: Sequence[str] = ()
    """inputs[i] is what decisions[i] read, if that is recorded; otherwise empty."""


class Authorizer:
    """Answers questions. Keeps no state of its own."""

    def __init__(
        self,
        verifier: Verifier,
        replica: Replica,
        recorder: Recorder,
        *,
        clock: Clock,
        record_allows: bool,
        provision: Provision | None = None,
        redaction: Redaction | None = None,
        offer: Offer | None = None,
    ) -> None:
        """Puts the rooms together.

        Args:
            verifier: Verifies tokens.
            replica: Has the facts.
            recorder: Writes the decision log.
            clock: The time of decisions.
            record_allows: Whether allows are recorded too.
            provision: Creates users that only their token names; None: nobody does.
            redaction: Removes secrets from recorded inputs; None: inputs are not recorded.
            offer: Takes decisions that a candidate policy makes too; None: there is no shadow.
        """
        self._verifier = verifier
        self._replica = replica
        self._recorder = recorder
        self._clock = clock
        self._record_allows = record_allows
        self._provision = provision
        self._redaction = redaction
        self._offer = offer

    async def rule(
        self,
        token_text: str,
        questions: Sequence[Question],
        caller: str,
        at_least_revision: int = 0,
    ) -> Ruling:
        """Answers all questions at one revision; returns once every denial is in the audit log.

        Raises:
            errors.Unavailable: keys, database, freshness, revision or audit are out of reach.
            errors.ShareExceeded: the caller has used up its share of the audit log. There is no
                answer, since a denial is given only once it is in the log.
        """
        ruling = await self._decide(token_text, questions, at_least_revision)
        return await self._record(ruling, questions, caller)

    async def rule_request(
        self, token_text: str, request: HttpRequest, caller: str
    ) -> Ruling | None:
        """Answers the question that a request's route asks, by the routes of the same policy that
        decides. None: the route is public.

        A token that is refused is refused whatever the path. Raises as `rule`.
        """
        for _ in range(ROUTING_ATTEMPTS_MAX):
            snapshot = self._replica.snapshot
            target = target_of(snapshot.policy, request)
            if target is None:
                self._replica.require_fresh(snapshot)
                return None
            questions = (target.question,)
            ruling = await self._decide(token_text, questions, 0, refusal=target.refusal)
            view = ruling.view
            if (
                view is None
                or view.policy is snapshot.policy
                or target_of(view.policy, request) == target
            ):
                return await self._record(ruling, questions, caller, request)
        raise FactsStale("the routes changed faster than a request could be matched")

    async def _decide(
        self,
        token_text: str,
        questions: Sequence[Question],
        at_least_revision: int,
        *,
        refusal: Reason | None = None,
    ) -> Ruling:
        """`refusal`: denies to everybody, for this reason unless the actor gives another."""
        now = self._clock()
        token: VerifiedToken | RefusedToken | None = self._verifier.cached(token_text, now)
        if token is None:
            token = await self._verifier.verify(token_text)
            now = self._clock()
        ids = [new_decision_id() for _ in questions]
        if isinstance(token, RefusedToken):
            refusals = [Decision(Effect.DENY, token.reason)] * len(questions)
            return Ruling(token, refusals, ids, self._replica.revision, now, None)
        resources = [question.resource for question in questions]
        view = await self.view(token, resources, at_least_revision)
        inputs: list[str] = []
        standing = prepare(view.policy, token, view.user, view.organization, now)
        if refusal is not None:
            decisions = [Decision(Effect.DENY, standing.refusal or refusal)] * len(questions)
        else:
            decisions, pace = [], Pace()
            for question, chain in zip(questions, view.chains, strict=True):
                decision = decide(standing, question, chain)
                if decision.effect is Effect.DENY:
                    decision = with_step_up(decision, standing, question, chain)
                decisions.append(decision)
                if self._redaction is not None:
                    records = self._record_allows or decision.effect is Effect.DENY
                    inputs.append(
                        inputs_of(standing, question, chain, self._redaction) if records else ""
                    )
                if pace.is_over():
                    await pace.give_way()
            if self._offer is not None:
                self._offer(token, view, questions, decisions, now)
        return Ruling(token, decisions, ids, view.revision, now, view, inputs)

    async def view(
        self, token: VerifiedToken, resources: Sequence[Resource | None], at_least_revision: int
    ) -> View:
        """The facts; of an unknown actor, after the actor was provisioned, if that is enabled.

        Raises `errors.Unavailable`, and what `Replica.view` raises.
        """
        actor = token.actor
        ids = (actor.user_id, actor.organization_id)
        view = await self._replica.view(*ids, resources, at_least_revision)
        if self._provision is None or not _is_new(actor, view.user):
            return view
        revision = max(at_least_revision, await self._provision(token))
        return await self._replica.view(*ids, resources, revision)

    async def _record(
        self,
        ruling: Ruling,
        questions: Sequence[Question],
        caller: str,
        request: HttpRequest | None = None,
    ) -> Ruling:
        def records(effect: Effect) -> list[DecisionRecord]:
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

        effects = {decision.effect for decision in ruling.decisions}
        if self._record_allows and Effect.ALLOW in effects:
            self._recorder.try_write(records(Effect.ALLOW))
        if Effect.DENY in effects:
            ruling = _with_ids(ruling, await self._recorder.record(records(Effect.DENY)))
        if ruling.view is not None:
            # Last, so that no pause between reading the facts and answering goes unnoticed.
            self._replica.confirm(ruling.view)
        return ruling


def _with_ids(ruling: Ruling, ids: Sequence[str]) -> Ruling:
    """The ruling with the ids under which its denials are in the log: equal ones share a record."""
    denied = iter(ids)
    decision_ids = [
        next(denied) if decision.effect is Effect.DENY else decision_id
        for decision, decision_id in zip(ruling.decisions, ruling.decision_ids, strict=True)
    ]
    return ruling._replace(decision_ids=decision_ids)


def _is_new(actor: Actor, user: UserFacts | None) -> bool:
    """Whether a token may prove of the actor what the database does not know. It may not for a
    disabled user, nor for a revoked session."""
    if user is None:
        return True
    return (
        actor.organization_id is not None
        and actor.organization_id not in user.memberships
        and user.user.status is UserStatus.ACTIVE
        and actor.session_id not in user.revoked_sessions
    )
