"""The path of an explanation: verify the token or take the named actor, load facts, explain,
confirm.

It uses the same rooms as `authorizer`, but writes nothing: an explanation is not an answer to a
caller's question, so it is not in the audit log, and the unknown user of a verified token is not
provisioned.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from pdp.audit import DecisionLog, DecisionRecord
from pdp.clock import Clock
from pdp.concurrency.waiting import in_pool
from pdp.decision import Explanation, NamedActor, Situation, Step, explain
from pdp.decision.explanation import StepKind, StepStatus
from pdp.errors import InvalidRequest, Violation
from pdp.facts import Replica, View
from pdp.identity import Verifier
from pdp.model import (
    Actor,
    Attributes,
    Decision,
    Effect,
    OrganizationFacts,
    Question,
    Reason,
    RefusedToken,
    Resource,
    VerifiedToken,
)

ORGANIZATIONS_MAX: Final = 8
"""The most organizations, besides the active one, that are tried as the active one."""


class Difference(NamedTuple):
    """A field of a decision that has changed."""

    field: str
    then: str
    now: str


@dataclass(frozen=True, slots=True)
class Explained:
    """An explanation, and the revision of its facts."""

    explanation: Explanation
    revision: int
    recorded: DecisionRecord | None = None
    """The recorded decision that is compared."""

    def differences(self) -> list[Difference]:
        """The fields in which the present decision differs from the recorded one."""
        then, now = self.recorded, self.explanation.decision
        if then is None:
            return []
        pairs = (
            ("decision", then.effect.value, now.effect.value),
            ("reason", then.reason.name, now.reason.name),
            ("rule", then.rule_id or "", now.rule_id or ""),
            ("grant", then.grant_id or "", now.grant_id or ""),
            (
                "resource_organization",
                then.resource_organization_id or "",
                now.resource_organization_id or "",
            ),
        )
        return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]


class Explainer:
    """Explains answers. Has no state of its own."""

    def __init__(
        self,
        verifier: Verifier,
        replica: Replica,
        log: DecisionLog,
        pool: ThreadPoolExecutor,
        *,
        clock: Clock,
    ) -> None:
        """`pool`: threads for explanations, which take far longer than decisions."""
        self._log = log
        self._verifier = verifier
        self._replica = replica
        self._pool = pool
        self._clock = clock

    async def explain(
        self,
        asking: str | NamedActor,
        question: Question,
        at_least_revision: int = 0,
        *,
        search: bool = True,
    ) -> Explained:
        """Explains the answer to a question of a token's bearer, or of a named actor; without
        `search`, not what would allow it.

        Raises:
            errors.Unavailable: keys, database, freshness or revision are unavailable.
        """
        token: VerifiedToken | RefusedToken
        if isinstance(asking, NamedActor):
            token = asking.token(self._clock())
        else:
            token = await self._verifier.verify(asking)
        if isinstance(token, RefusedToken):
            return Explained(_refused(token), self._replica.revision)
        actor, now = token.actor, self._clock()
        resources = [question.resource]
        view = await self._replica.view(
            actor.user_id, actor.organization_id, resources, at_least_revision
        )
        situation = Situation(
            view.policy,
            token,
            view.user,
            await self._organizations(view, actor),
            question,
            view.chains[0],
            now,
        )
        explanation = await in_pool(self._pool, lambda: explain(situation, search=search))
        self._replica.confirm(view)
        return Explained(explanation, view.revision)

    async def explain_recorded(
        self,
        decision_id: str,
        attributes: Attributes,
        context: Attributes,
        at_least_revision: int = 0,
    ) -> Explained:
        """Decides a recorded question again, with the present policy and facts.

        The log contains neither claims and factors nor the caller's input: claims and factors are
        absent, and the caller supplies `attributes` (of the resource) and `context`.

        Raises:
            errors.NotFound: there is no such decision.
            errors.InvalidRequest: the record is of a query, or of a request without a route, or was
                erased.
            errors.Unavailable: as `explain`.
        """
        first, *_ = await in_pool(self._pool, lambda: self._log.get(decision_id))
        if first.query is not None:
            text = f"is a query ({first.query}), not a decision"
            raise InvalidRequest(Violation("decision_id", text))
        if first.erased_at is not None:
            raise InvalidRequest(Violation("decision_id", "its record was erased on request"))
        if first.reason in (Reason.ROUTE_UNKNOWN, Reason.PATH_AMBIGUOUS):
            text = f"is about {first.request}, for which there was no route ({first.reason.name})"
            raise InvalidRequest(Violation("decision_id", text))
        refused = first.reason.name.startswith("TOKEN_") or first.reason is Reason.SESSION_PENDING
        if first.actor is None or refused:
            token = RefusedToken(first.reason, first.token_fingerprint, first.actor)
            return Explained(_refused(token), self._replica.revision, first)
        resource = None
        if first.resource is not None:
            # For a resource that is not stored, the log has the organization that the caller sent.
            resource = Resource(
                first.resource.type,
                first.resource.id,
                first.resource_organization_id,
                attributes=attributes,
            )
        explained = await self.explain(
            NamedActor(first.actor),
            Question(first.permission, resource, context),
            at_least_revision,
        )
        return replace(explained, recorded=first)

    async def _organizations(self, view: View, actor: Actor) -> Mapping[str, OrganizationFacts]:
        """Facts of the active organization, and of others that might be active: first those of the
        resource, then the actor's other memberships. Facts that changed meanwhile are dropped, so
        that all have the same revision."""
        found = {}
        if view.organization is not None:
            found[view.organization.organization_id] = view.organization
        memberships = view.user.memberships if view.user is not None else {}
        owners = [facts.resource.organization_id for facts in view.chains[0]]
        others = [id_ for id_ in (*owners, *sorted(memberships)) if id_ in memberships]
        for organization_id in list(dict.fromkeys(others))[:ORGANIZATIONS_MAX]:
            if organization_id is not None and organization_id not in found:
                other = await self._replica.view(actor.user_id, organization_id, [])
                if other.organization is not None and other.revision == view.revision:
                    found[organization_id] = other.organization
        return found


def _refused(token: RefusedToken) -> Explanation:
    reason = token.reason
    known = ""
    if token.actor is not None:
        known = f"; its signature is valid, and it is of {token.actor.user_id}"
    step = Step(StepKind.TOKEN, StepStatus.NOT_MET, f"token {token.fingerprint}: refused{known}")
    text = f"the token is refused: {reason.name}. {reason.value}"
    tree = Step(StepKind.DECISION, StepStatus.NOT_MET, text, children=(step,))
    return Explanation(Decision(Effect.DENY, reason), tree)
