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
    ) -> None:
        self._verifier = verifier
        self._replica = replica
        self._recorder = recorder
        self._clock = clock
        self._record_allows = record_allows
        self._provision = provision

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

    async def rule_session(
        self, token: VerifiedToken, question: Question, caller: str, request: HttpRequest
    ) -> Ruling:
        """Answers a question of a console session, whose token was verified when it began.

        Allows are recorded too, and like denials they are in the audit log before this returns. An
        unknown user is not provisioned. Raises as `rule`.
        """
        actor, now = token.actor, self._clock()
        view = await self._replica.view(actor.user_id, actor.organization_id, [question.resource])
        principal = prepare(view.policy, token, view.user, view.organization, now)
        decision = decide(principal, question, view.chains[0])
        ruling = Ruling(token, [decision], [new_decision_id()], view.revision, now, view)
        return await self._record(ruling, [question], caller, request, await_allows=True)

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
                if pace.is_over():
                    await pace.give_way()
        return Ruling(token, decisions, ids, view.revision, now, view)

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
        *,
        await_allows: bool = False,
    ) -> Ruling:
        """`await_allows`: allows are recorded in any case, and as surely as denials."""

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
            )

        effects = {decision.effect for decision in ruling.decisions}
        if Effect.ALLOW in effects and await_allows:
            await self._recorder.record(records(Effect.ALLOW))
        elif Effect.ALLOW in effects and self._record_allows:
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
