"""From values to a decision: may who stands here do that?

The order of refusals: actor unknown, actor disabled, session revoked, membership unknown,
permission unknown; then the rules. The reason of a denial is the first that fits: a deny rule
applies; a deny rule applies because its condition failed; the resource is of another organization;
an allow rule's condition failed; was not met; nothing allows it. Where several rules or grants
would decide alike, the smallest rule id decides, then the smallest grant id.

Allow rules stop at the tenant's wall: where a resource of the chain belongs to an organization that
is not the active one, they count only through a grant to the user that holds everywhere. Deny rules
do not stop there: they also count through a grant to the user in the resource's organization. A
grant to an organization role speaks to who acts for its organization, so one in another
organization never counts.
"""

from typing import Any

from pdp.decision.conditions import Condition
from pdp.decision.cost import AT_WILL, Budget, Turn
from pdp.decision.policy import Policy
from pdp.decision.shortcuts import Values
from pdp.decision.standing import Candidate, Candidates, Standing, narrow_grants
from pdp.model import (
    EVERYWHERE,
    Decision,
    Effect,
    Grant,
    Question,
    Reason,
    ResourceFacts,
    ToOrganizationRole,
)


def decide(
    standing: Standing,
    question: Question,
    chain: tuple[ResourceFacts, ...],
    turn: Turn = AT_WILL,
) -> Decision:
    """May they? `chain` is the asked resource as stored, then what is above it, nearest first;
    empty where the question names no resource. Each expensive condition is evaluated inside `turn`.

    Raises ValueError where question and chain do not agree, and what entering `turn` raises.
    """
    _check_agreement(question, chain)
    active = standing.token.actor.organization_id
    owner = None
    foreign = False
    narrow = bool(standing.on_resources)
    for facts in chain:
        organization = facts.resource.organization_id
        if organization is not None:
            owner = owner or organization
            foreign = foreign or organization != active
        if facts.role_grants:
            narrow = True

    until = standing.reusable_until
    if standing.refusal is not None:
        return Decision(Effect.DENY, standing.refusal, None, None, owner, until)
    permission = question.permission
    candidates = standing.candidates.get(permission)
    if candidates is None:
        if permission not in standing.policy.permissions:
            until = standing.token.expires_at  # no grant was looked at
            return Decision(Effect.DENY, Reason.PERMISSION_UNKNOWN, None, None, owner, until)
        candidates = _candidates(standing.policy, standing.wide, permission)
        standing.candidates[permission] = candidates
    if chain and (narrow or (foreign and standing.elsewhere)):
        grants, until = narrow_grants(standing, chain, until)
        if grants:
            allow, deny = _candidates(standing.policy, grants, permission)
            candidates = (
                sorted(candidates[0] + allow, key=_order),
                sorted(candidates[1] + deny, key=_order),
            )
    return _judge(candidates, foreign, owner, until, _Outcomes(standing, question, chain, turn))


def _check_agreement(question: Question, chain: tuple[ResourceFacts, ...]) -> None:
    # A chain that was left out would take the tenant's wall away.
    asked = question.resource
    if asked is None:
        if chain:
            raise ValueError("there are resources, but the question names none")
    elif not chain or chain[0].resource.id != asked.id or chain[0].resource.type != asked.type:
        raise ValueError("the question names a resource that is not the first one")


def _judge(
    candidates: Candidates,
    foreign: bool,
    owner: str | None,
    until: float,
    outcomes: "_Outcomes",
) -> Decision:
    """Deny rules first, all of them until one applies; then allow rules, until one does."""
    allow, deny = candidates
    effect, reason, by = Effect.DENY, Reason.PERMISSION_NOT_GRANTED, None
    for candidate in deny:
        outcome = outcomes.of(candidate)
        if outcome is True:
            reason, by = Reason.DENIED_BY_RULE, candidate
            break
        if outcome is not False and by is None:
            reason, by = outcome, candidate  # it failed, so the rule applies
    if by is None:
        for candidate in allow:
            if foreign and not candidate[2]:
                continue
            outcome = outcomes.of(candidate)
            if outcome is True:
                effect, reason, by = Effect.ALLOW, Reason.ALLOWED_BY_RULE, candidate
                break
            if outcome is False:
                if by is None:
                    reason, by = Reason.CONDITION_NOT_MET, candidate
            elif by is None or reason is Reason.CONDITION_NOT_MET:
                reason, by = outcome, candidate
        if foreign and effect is Effect.DENY:
            reason, by = Reason.WRONG_ORGANIZATION, None
    return Decision(
        effect,
        reason,
        by[0] if by is not None else None,
        by[1] if by is not None else None,
        owner,
        until if outcomes.timeless else None,
        tuple(outcomes.too_expensive),
    )


class _Outcomes:
    """Evaluates each condition at most once for one question, all within one budget."""

    __slots__ = (
        "_budget",
        "_chain",
        "_known",
        "_question",
        "_standing",
        "_turn",
        "_values",
        "timeless",
        "too_expensive",
    )

    def __init__(
        self,
        standing: Standing,
        question: Question,
        chain: tuple[ResourceFacts, ...],
        turn: Turn,
    ) -> None:
        self._standing = standing
        self._question = question
        self._chain = chain
        self._known: dict[Condition, bool | Reason] = {}
        self._values: Values | None = None
        self._turn = turn
        self._budget: Budget | None = None
        self.timeless = True
        """Whether nothing that was evaluated reads the time."""
        self.too_expensive: list[str] = []
        """Rules whose condition failed because it would have cost more than was left."""

    def of(self, candidate: Candidate) -> bool | Reason:
        condition = candidate[3]
        if condition is None:
            return True
        outcome = self._known.get(condition)
        if outcome is None:
            values, budget = self._values, self._budget
            if values is None or budget is None:
                values = self._values = _values(self._standing, self._question, self._chain)
                budget = self._budget = Budget(self._turn)
            outcome = self._known[condition] = condition.evaluate(values, budget)
            if budget.exceeded:
                self.too_expensive.append(candidate[0])
                budget.exceeded = False
            if condition.reads_now:
                self.timeless = False
        return outcome


def _candidates(policy: Policy, grants: list[Grant], permission: str) -> Candidates:
    allow: list[Candidate] = []
    deny: list[Candidate] = []
    for grant in grants:
        allowing, denying = policy.rules_of(grant.role, permission)
        if allowing:
            pierces = grant.scope is EVERYWHERE and not isinstance(
                grant.subject, ToOrganizationRole
            )
            allow += [(rule, grant.id, pierces, condition) for rule, condition in allowing]
        if denying:
            deny += [(rule, grant.id, False, condition) for rule, condition in denying]
    if len(grants) > 1:
        allow.sort(key=_order)
        deny.sort(key=_order)
    return allow, deny


def _order(candidate: Candidate) -> tuple[str, str]:
    return candidate[:2]


def _values(standing: Standing, question: Question, chain: tuple[ResourceFacts, ...]) -> Values:
    """What conditions may read: of the actor, and of the question."""
    actor = standing.actor_values
    if actor is None:
        actor = standing.actor_values = _actor_values(standing)
    if not chain:
        return actor, {"context": question.context}
    resource = chain[0].resource
    return actor, {
        "context": question.context,
        "resource.type": resource.type,
        "resource.id": resource.id,
        "resource.organization": resource.organization_id or "",
        "resource.attributes": resource.attributes,
    }


def _actor_values(standing: Standing) -> dict[str, Any]:
    token = standing.token
    actor = token.actor
    values = {
        "actor.id": actor.user_id,
        "actor.session": actor.session_id,
        "actor.organization": actor.organization_id or "",
        "actor.organization_role": standing.organization_role,
        "actor.impersonator": actor.impersonator_id or "",
        "actor.attributes": standing.user.user.attributes if standing.user else {},
        "actor.claims": token.claims,
        "actor.claimed_permissions": token.claimed_permissions,
        "now": standing.now,
    }
    # Unset stays unset: reading it is an error, so an absent factor is never a fresh one, and a
    # role of which nothing is known is not taken for one without permissions.
    permissions = _organization_permissions(standing)
    if permissions is not None:
        values["actor.organization_permissions"] = permissions
    if token.first_factor_minutes is not None:
        values["actor.first_factor_minutes"] = token.first_factor_minutes
    if token.second_factor_minutes is not None:
        values["actor.second_factor_minutes"] = token.second_factor_minutes
    return values


def _organization_permissions(standing: Standing) -> tuple[str, ...] | None:
    """What the actor's organization role carries; None where that is not known."""
    role = standing.organization_role
    return standing.policy.organization_permissions.get(role) if role else ()
