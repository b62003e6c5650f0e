"""The corridor: identity -> facts -> decision -> audit. The way of a request, in one function.

Three outcomes that never mix: a `Ruling` (allow or deny), a typed error of `errors.py` (there is no
answer), or a bug. An error is never an allow: nothing here catches one.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pdp_routes import PUBLIC, RouteRefused

from pdp.audit import Recorder, new_decision_id
from pdp.clock import Clock
from pdp.decision import Policy, Standing, decide, names, prepare
from pdp.errors import FactsStale, MustWait
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
    ResourceRef,
    UserFacts,
    UserStatus,
    VerifiedToken,
)

Provision = Callable[[VerifiedToken], int]
"""Writes down whom a token proves, as far as nobody has spoken of them before. Returns a revision
that holds what came of it. Raises `errors.Unavailable`."""


StillWanted = Callable[[], None]
"""Raises `errors.NotWanted` once nobody waits for the answer any more. Never waits itself."""

ROUTING_ATTEMPTS_MAX = 3
AT_ONCE_SECONDS_MAX = 0.005
"""How long questions may be answered without `wait`, before others have waited long enough."""
PAUSE_SECONDS = 0.001
UNROUTED = "http:request"
"""The permission on record where a request has no route."""
REQUEST_CHARACTERS_MAX = 512
_NOT_PLAIN = re.compile(r"[^\x21-\x7e]")


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


class _Turns:
    """Lets one expensive condition be evaluated at a time, and everybody else run after it.

    An evaluation keeps the interpreter's lock. Many at once would hand it to each other, and
    whoever wants to answer a small question would wait for all of them, again and again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        try:
            time.sleep(PAUSE_SECONDS)  # without the interpreter's lock, and nobody else's turn
        finally:
            self._lock.release()


class _NoTurn:
    """What must not wait leaves expensive conditions to what may."""

    def __enter__(self) -> None:
        raise MustWait

    def __exit__(self, *_: object) -> None:
        pass


_NO_TURN = _NoTurn()


class Authorizer:
    """Answers questions. Thread-safe."""

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
        self._turns = _Turns()

    def rule(
        self,
        token_text: str,
        questions: Sequence[Question],
        caller: str,
        at_least_revision: int = 0,
        *,
        wait: bool = True,
        still_wanted: StillWanted = lambda: None,
    ) -> Ruling:
        """Answers all questions at one revision; returns once every denial is on record.

        Without `wait` it returns at once, and denials are left to `settle`. `still_wanted` is asked
        before each question; what it raises ends the work, and nothing is recorded.

        Raises `errors.Unavailable` (keys, database, freshness, revision or audit out of reach),
        `errors.ShareExceeded` (the caller has used up its share of the audit log: no denial is
        given that is not on record), and without `wait` MustWait where an answer needs what is not
        in memory, or takes long.
        """
        ruling = self._decide(
            token_text, questions, at_least_revision, wait=wait, still_wanted=still_wanted
        )
        return self._on_record(ruling, questions, caller, wait=wait)

    def rule_request(
        self, token_text: str, request: HttpRequest, caller: str, *, wait: bool = True
    ) -> Ruling | None:
        """Answers for a request what its route needs, by the routes of the very policy that
        decides. None: what it asks for is public.

        Otherwise as `rule`. A token that is refused is so whatever the path.
        """
        for _ in range(ROUTING_ATTEMPTS_MAX):
            snapshot = self._replica.snapshot
            target = _target(snapshot.policy, request)
            if target is None:
                self._replica.require_fresh(snapshot)
                return None
            questions = (target.question,)
            ruling = self._decide(token_text, questions, 0, wait=wait, refusal=target.refusal)
            view = ruling.view
            if (
                view is None
                or view.policy is snapshot.policy
                or _target(view.policy, request) == target
            ):
                return self._on_record(ruling, questions, caller, wait=wait, request=request)
        raise FactsStale("the routes changed faster than a request could be matched")

    def _decide(
        self,
        token_text: str,
        questions: Sequence[Question],
        at_least_revision: int,
        *,
        wait: bool,
        refusal: Reason | None = None,
        still_wanted: StillWanted = lambda: None,
    ) -> Ruling:
        """`refusal`: why it is denied to everybody who is not refused for what they are."""
        token = self._verifier.verify(token_text, wait=wait)
        now = self._clock()
        ids = [new_decision_id() for _ in questions]
        if isinstance(token, RefusedToken):
            refusals = [Decision(Effect.DENY, token.reason)] * len(questions)
            return Ruling(token, refusals, ids, self._replica.revision, now, None)
        view = self._view(token, questions, at_least_revision, wait=wait)
        standing = prepare(view.policy, token, view.user, view.organization, now)
        if refusal is None:
            decisions = self._decide_each(standing, questions, view, still_wanted, wait=wait)
        else:
            decisions = [Decision(Effect.DENY, standing.refusal or refusal)] * len(questions)
        return Ruling(token, decisions, ids, view.revision, now, view)

    def _decide_each(
        self,
        standing: Standing,
        questions: Sequence[Question],
        view: View,
        still_wanted: StillWanted,
        *,
        wait: bool,
    ) -> list[Decision]:
        decisions: list[Decision] = []
        turn = self._turns if wait else _NO_TURN
        began = time.monotonic()
        for question, chain in zip(questions, view.chains, strict=True):
            still_wanted()
            if not wait and time.monotonic() - began > AT_ONCE_SECONDS_MAX:
                raise MustWait
            decisions.append(decide(standing, question, chain, turn))
        return decisions

    def _on_record(
        self,
        ruling: Ruling,
        questions: Sequence[Question],
        caller: str,
        *,
        wait: bool,
        request: HttpRequest | None = None,
    ) -> Ruling:
        """An answer, or without `wait` one that is left to `settle`."""
        denials = self._records_to_sync(ruling, questions, caller, request)
        if denials and not wait:
            return replace(ruling, unrecorded=denials)
        ruling = _with_ids(ruling, self._recorder.record(denials))
        self._confirm(ruling)
        return ruling

    async def settle(self, ruling: Ruling) -> Ruling:
        """The answer of a ruling that did not wait, once its denials are on record.

        Raises `errors.Unavailable`, `errors.ShareExceeded`.
        """
        ruling = _with_ids(ruling, await self._recorder.record_from_loop(ruling.unrecorded))
        self._confirm(ruling)
        return ruling

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
        self,
        ruling: Ruling,
        questions: Sequence[Question],
        caller: str,
        request: HttpRequest | None,
    ) -> Sequence[DecisionRecord]:
        effects = {decision.effect for decision in ruling.decisions}
        if self._record_allows and Effect.ALLOW in effects:
            self._recorder.offer(_records(ruling, questions, caller, request, Effect.ALLOW))
        if Effect.DENY not in effects:
            return ()
        return _records(ruling, questions, caller, request, Effect.DENY)


def _with_ids(ruling: Ruling, ids: Sequence[str]) -> Ruling:
    """The ruling with the decision ids under which its denials are on record, in their order."""
    denied = iter(ids)
    decision_ids = [
        next(denied) if decision.effect is Effect.DENY else decision_id
        for decision, decision_id in zip(ruling.decisions, ruling.decision_ids, strict=True)
    ]
    return replace(ruling, decision_ids=decision_ids, unrecorded=()) if ids else ruling


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


class _Target(NamedTuple):
    """Where a request leads."""

    question: Question
    refusal: Reason | None
    """Why it leads nowhere; then the question says only what stands on record."""


def _target(policy: Policy, request: HttpRequest) -> _Target | None:
    """None: to what is public."""
    try:
        found = policy.routes.match(request.method, request.path)
    except RouteRefused as refused:
        unknown = refused.reason == "no_route"
        reason = Reason.ROUTE_UNKNOWN if unknown else Reason.PATH_AMBIGUOUS
        return _Target(Question(UNROUTED), reason)
    if found is PUBLIC:
        return None
    resource = None
    if found.resource_type is not None and found.resource_id is not None:
        if names.check_identifier(found.resource_id, "") is not None:
            # Nothing can be called so: not an error, which a client could bring about.
            return _Target(Question(UNROUTED), Reason.ROUTE_UNKNOWN)
        resource = Resource(found.resource_type, found.resource_id)
    return _Target(Question(found.permission, resource, request.context), None)


def _text(request: HttpRequest) -> str:
    """A request on record: without its query, on one line whatever it holds, and bounded."""
    path = request.path.partition("?")[0]
    method, path = (
        _NOT_PLAIN.sub(lambda found: f"\\x{ord(found[0]):02x}", part)
        for part in (request.method, path)
    )
    text = f"{method} {path}"
    if len(text) > REQUEST_CHARACTERS_MAX:
        return text[: REQUEST_CHARACTERS_MAX - 3] + "..."
    return text


def _records(
    ruling: Ruling,
    questions: Sequence[Question],
    caller: str,
    request: HttpRequest | None,
    effect: Effect,
) -> list[DecisionRecord]:
    token = ruling.token
    text = None if request is None else _text(request)
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
                decided_at=ruling.decided_at,
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
                request=text,
            )
        )
    return records
