"""The path of a request: verify the token, load the facts, decide, record, confirm.

There are three distinct outcomes: a `Ruling` (allow or deny), a typed error of `errors.py` (no
answer), or a bug. An error is never an allow: this module catches none.

An `await` suspends only to wait for a key set, the database or the audit log. If everything is in
memory, a question is answered without suspending.
"""

from collections.abc import Awaitable, Callable, Sequence

from pdp.audit import new_decision_id
from pdp.clock import Clock
from pdp.concurrency.pacing import Pace
from pdp.decision import decide, target_of, with_step_up
from pdp.errors import FactsStale
from pdp.facts import Replica, View
from pdp.identity import Verifier
from pdp.model import (
    Decision,
    Effect,
    HttpRequest,
    Question,
    Reason,
    RefusedToken,
    Resource,
    VerifiedToken,
)
from pdp.recording import Recording
from pdp.ruling import Ruling

Provision = Callable[[VerifiedToken], Awaitable[int]]
"""Creates the user, organization and membership named in a verified token, unless Clerk has already
reported them. Returns a revision at which that is stored. Raises `errors.Unavailable`."""

Offer = Callable[[VerifiedToken, View, Sequence[Question], Sequence[Decision], float], None]
"""Takes the decisions of one request and their time. Never waits, never raises."""

ROUTING_ATTEMPTS_MAX = 3


class Authorizer:
    """Answers questions. Has no state of its own.

    Example::

        async def may_edit(authorizer: Authorizer, token: str) -> bool:
            question = Question("course:edit", Resource("course", "c1"))
            ruling = await authorizer.rule(token, [question], caller="backend")
            return ruling.decisions[0].effect is Effect.ALLOW
    """

    def __init__(
        self,
        verifier: Verifier,
        replica: Replica,
        recording: Recording,
        *,
        clock: Clock,
        provision: Provision | None = None,
        offer: Offer | None = None,
    ) -> None:
        """Puts the rooms together.

        Args:
            verifier: Verifies tokens.
            replica: Has the facts.
            recording: Writes the decision log.
            clock: The time of decisions.
            provision: Creates users that only their token names; None: nobody does.
            offer: Takes decisions that a candidate policy makes too; None: there is no shadow.
        """
        self._verifier = verifier
        self._replica = replica
        self._recording = recording
        self._clock = clock
        self._provision = provision
        self._offer = offer

    async def rule(
        self,
        token_text: str,
        questions: Sequence[Question],
        caller: str,
        at_least_revision: int = 0,
    ) -> Ruling:
        """Answers all questions at the same revision. Returns after every denial is in the audit
        log.

        Raises:
            errors.Unavailable: keys, database, freshness, revision or audit are unavailable.
            errors.ShareExceeded: the caller has used up its share of the audit log. There is no
                answer, because a denial is returned only after it is in the log.
        """
        ruling = await self._decide(token_text, questions, at_least_revision)
        return self._confirm(await self._recording.write(ruling, questions, caller))

    async def rule_request(
        self, token_text: str, request: HttpRequest, caller: str
    ) -> Ruling | None:
        """Answers the question that a request's route asks. Routing and decision use the same
        policy.

        Returns None if the route is public. A refused token is refused whatever the path. Raises as
        `rule`.
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
                ruling = await self._recording.write(ruling, questions, caller, request)
                return self._confirm(ruling)
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
        principal = view.principal(token, now)
        decision = decide(principal, question, view.chains[0])
        ruling = Ruling(token, [decision], [new_decision_id()], view.revision, now, view)
        write = self._recording.write
        return self._confirm(await write(ruling, [question], caller, request, await_allows=True))

    async def _decide(
        self,
        token_text: str,
        questions: Sequence[Question],
        at_least_revision: int,
        *,
        refusal: Reason | None = None,
    ) -> Ruling:
        """Decides without recording. `refusal`: deny for this reason, unless the principal has
        another."""
        now = self._clock()
        token: VerifiedToken | RefusedToken | None = self._verifier.cached(token_text, now)
        if token is None:
            token = await self._verifier.verify(token_text)
            now = self._clock()
        ids = [new_decision_id() for _ in questions]
        if isinstance(token, RefusedToken):
            decisions = [Decision(Effect.DENY, token.reason)] * len(questions)
            return Ruling(token, decisions, ids, self._replica.revision, now, None)
        resources = [question.resource for question in questions]
        view = await self.view(token, resources, at_least_revision)
        inputs: list[str] = []
        principal = view.principal(token, now)
        if refusal is not None:
            decisions = [Decision(Effect.DENY, principal.refusal or refusal)] * len(questions)
        else:
            decisions, pace = [], Pace()
            for question, chain in zip(questions, view.chains, strict=True):
                decision = decide(principal, question, chain)
                if decision.effect is Effect.DENY:
                    decision = with_step_up(decision, principal, question, chain)
                decisions.append(decision)
                if self._recording.with_inputs:
                    inputs.append(self._recording.inputs(principal, question, chain, decision))
                if pace.is_over():
                    await pace.give_way()
            if self._offer is not None:
                self._offer(token, view, questions, decisions, now)
        return Ruling(token, decisions, ids, view.revision, now, view, inputs)

    async def view(
        self, token: VerifiedToken, resources: Sequence[Resource | None], at_least_revision: int
    ) -> View:
        """Loads the facts; provisions an unknown actor before, if that is enabled.

        Raises `errors.Unavailable`, and what `Replica.view` raises.
        """
        actor = token.actor
        ids = (actor.user_id, actor.organization_id)
        view = await self._replica.view(*ids, resources, at_least_revision)
        if self._provision is None or not view.lacks(actor):
            return view
        revision = max(at_least_revision, await self._provision(token))
        return await self._replica.view(*ids, resources, revision)

    def _confirm(self, ruling: Ruling) -> Ruling:
        """Last, so that a pause between reading the facts and answering cannot go unnoticed."""
        if ruling.view is not None:
            self._replica.confirm(ruling.view)
        return ruling
