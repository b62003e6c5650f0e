"""The way of a query: verify the token, gather facts, decide each row, record once, confirm.

What may an actor do, what may they use, and who may. Each row is decided by the evaluator that
answers Check. A query is one record in the audit log, whatever it denies; like a denial, it is on
disk before the answer is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pdp.audit import Recorder, new_decision_id
from pdp.authorizer import Authorizer
from pdp.clock import Clock
from pdp.decision import Standing, decide, prepare
from pdp.errors import LimitExceeded
from pdp.facts import Replica, View
from pdp.identity import Verifier
from pdp.limits import BATCH_ITEMS_MAX
from pdp.model import (
    Attributes,
    DecisionRecord,
    Effect,
    Question,
    Reason,
    RefusedToken,
    Resource,
    ResourceFacts,
    ResourceRef,
    VerifiedToken,
)
from pdp.pacing import Pace

_Token = VerifiedToken | RefusedToken


@dataclass(frozen=True, slots=True)
class Answered:
    """What every answer to a query says."""

    token: _Token
    refusal: Reason | None
    """Why the actor is refused as a whole; None: they are not."""
    query_id: str
    revision: int
    epoch: str
    """Empty: the token was refused, so that no fact was read."""


@dataclass(frozen=True, slots=True)
class PermissionsOn:
    """The declared permissions of a resource's type, each list in bytewise order."""

    allowed: Sequence[str] = ()
    denied: Sequence[str] = ()


class AccessQueries:
    """Answers queries. Keeps no state of its own."""

    def __init__(
        self,
        authorizer: Authorizer,
        verifier: Verifier,
        replica: Replica,
        recorder: Recorder,
        *,
        clock: Clock,
    ) -> None:
        self._authorizer = authorizer
        self._verifier = verifier
        self._replica = replica
        self._recorder = recorder
        self._clock = clock

    async def permissions(
        self,
        token_text: str,
        resources: Sequence[Resource],
        context: Attributes,
        caller: str,
        at_least_revision: int = 0,
    ) -> tuple[Answered, Sequence[PermissionsOn]]:
        """For each resource the declared permissions of its type, all at one revision.

        Raises:
            errors.LimitExceeded: together they are more than BATCH_ITEMS_MAX.
            errors.Unavailable, errors.ShareExceeded: as `Authorizer.rule`.
        """
        token = await self._verifier.verify(token_text)
        types = sorted({resource.type for resource in resources})
        record = self._record(
            "ListAllowedPermissions",
            f"{types[0]}:*" if len(types) == 1 else "*",
            ResourceRef(types[0], resources[0].id) if len(resources) == 1 else None,
            caller,
            token,
        )
        if isinstance(token, RefusedToken):
            answered = await self._finish(record, token, token.reason, None)
            return answered, [PermissionsOn()] * len(resources)
        view = await self._authorizer.view(token, resources, at_least_revision)
        declared = {type_: view.policy.permissions_on(type_) for type_ in types}
        items = sum(len(declared[resource.type]) for resource in resources)
        if items > BATCH_ITEMS_MAX:
            raise LimitExceeded("batch_items_max", BATCH_ITEMS_MAX, items)
        standing = prepare(view.policy, token, view.user, view.organization, record.decided_at)
        results, pace = [], Pace()
        for resource, chain in zip(resources, view.chains, strict=True):
            allowed: list[str] = []
            denied: list[str] = []
            for name in declared[resource.type]:
                holds = _allows(standing, Question(name, resource, context), chain)
                (allowed if holds else denied).append(name)
                await pace.give_way()
            results.append(PermissionsOn(allowed, denied))
        return await self._finish(record, token, standing.refusal, view), results

    def _record(
        self,
        query: str,
        permission: str,
        resource: ResourceRef | None,
        caller: str,
        token: _Token | None,
    ) -> DecisionRecord:
        """The record of a query that begins now. `_finish` completes it."""
        return DecisionRecord(
            decision_id=new_decision_id(),
            decided_at=self._clock(),
            effect=Effect.DENY,
            reason=Reason.QUERY_ANSWERED,
            permission=permission,
            caller=caller,
            revision=self._replica.revision,
            token_fingerprint="" if token is None else token.fingerprint,
            actor=None if token is None else token.actor,
            token_id=None if token is None else token.token_id,
            resource=resource,
            query=query,
        )

    async def _finish(
        self, record: DecisionRecord, token: _Token, refusal: Reason | None, view: View | None
    ) -> Answered:
        """Puts the query on record; then confirms, last, that its facts are still fresh enough."""
        record = replace(
            record,
            effect=Effect.ALLOW if refusal is None else Effect.DENY,
            reason=refusal or Reason.QUERY_ANSWERED,
            revision=record.revision if view is None else view.revision,
        )
        (query_id,) = await self._recorder.record([record])
        if view is not None:
            self._replica.confirm(view)
        epoch = "" if view is None else view.snapshot.epoch
        return Answered(token, refusal, query_id, record.revision, epoch)


def _allows(standing: Standing, question: Question, chain: tuple[ResourceFacts, ...]) -> bool:
    return decide(standing, question, chain).effect is Effect.ALLOW
