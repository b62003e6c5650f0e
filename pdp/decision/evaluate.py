"""From values to a decision: may who stands here do that?

The order of refusals: actor unknown, actor disabled, session revoked, membership unknown,
permission unknown, resource unknown; then the rules. The reason of a denial is the first that fits:
a deny rule applies; a deny rule applies because its condition failed; the resource is of another
organization; its organization is not known; an allow rule's condition failed; was not met; nothing
allows it. Where several rules or grants would decide alike, the smallest rule id decides, then the
smallest grant id.

Allow rules stop at the tenant's wall: where a resource of the chain belongs to an organization that
is not the active one, they count only through a grant to the user that holds everywhere. Where no
resource of the chain belongs to any, and the policy does not say that the type has no tenants, they
count through a grant to the user everywhere or on a resource of the chain: who wrote the latter
named that very resource. Deny rules do not stop there: they also count through a grant to the user
in the resource's organization, or in any while that is not known. A grant to an organization role
speaks to who acts for its organization, so one in another organization never counts.

The permissions of the console (`policy.CONSOLE`) are of no organization: allow rules count for them
only through a grant to the user that holds everywhere, and `*` does not name them. Deny rules
count as ever.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pdp import limits
from pdp.decision.conditions import Condition
from pdp.decision.cost import Budget
from pdp.decision.fast_path import Values
from pdp.decision.policy import CONSOLE, Policy
from pdp.decision.principal import (
    ANY_ORGANIZATION,
    IN_ORGANIZATION,
    UNKNOWN_ORGANIZATION,
    Candidate,
    Candidates,
    Standing,
    grants_elsewhere,
    grants_on_resources,
)
from pdp.model import (
    EVERYWHERE,
    NO_ATTRIBUTES,
    Decision,
    Effect,
    Grant,
    OnResource,
    Question,
    Reason,
    ResourceFacts,
    ToUser,
)

Judge = Callable[[Candidates, int, str | None, float, "Outcomes"], Decision]
"""Decides from the rules that count, the reach that the resource asks for (a number of
`principal`), the resource's organization, the end of reuse, and what conditions come to."""

_NONE: Final[Candidates] = ([], [])


def decide(
    standing: Standing,
    question: Question,
    chain: tuple[ResourceFacts, ...],
    judge: Judge | None = None,
) -> Decision:
    """May they? `chain` is the asked resource as stored, then what is above it, nearest first;
    empty where the question names no resource. `judge`: notes what it is given, and returns what
    `judge_rules` returns for it.

    Raises ValueError where question and chain do not agree.
    """
    _check_agreement(question, chain)
    refusal, candidates, needed, owner, until = applicable(standing, question.permission, chain)
    if refusal is not None:
        return Decision(Effect.DENY, refusal, None, None, owner, until)
    # What has no organization by its type reads as "", what is not known is not there to be read.
    organization = "" if owner is None and needed == IN_ORGANIZATION else owner
    outcomes = Outcomes(standing, question, chain, organization)
    return (judge or judge_rules)(candidates, needed, owner, until, outcomes)


def applicable(
    standing: Standing, permission: str, chain: tuple[ResourceFacts, ...]
) -> tuple[Reason | None, Candidates, int, str | None, float]:
    """What would decide, before any condition is evaluated.

    Returns:
        Why it is denied whatever the rules say (None: it is not); the rules that apply, both kinds
        in order; how far an allow rule has to reach; the resource's organization; until when all
        of this holds (seconds since 1970-01-01 UTC).
    """
    policy = standing.policy
    owner = None
    foreign = False
    has_role_grants = False
    active = standing.token.actor.organization_id
    for facts in chain:
        organization = facts.resource.organization_id
        if organization is not None:
            owner = owner or organization
            foreign = foreign or organization != active
        if facts.role_grants:
            has_role_grants = True
    needed = IN_ORGANIZATION
    if foreign:
        needed = ANY_ORGANIZATION
    elif owner is None and chain and not policy.has_no_tenants(chain[0].resource.type):
        needed = UNKNOWN_ORGANIZATION
    until = standing.reusable_until
    if standing.refusal is not None:
        return standing.refusal, _NONE, needed, owner, until
    candidates = standing.candidates.get(permission)
    if candidates is None:
        if permission not in policy.permissions:
            # No grant was looked at.
            return Reason.PERMISSION_UNKNOWN, _NONE, needed, owner, standing.token.expires_at
        candidates = _candidates(policy, standing.wide, permission)
        standing.candidates[permission] = candidates
    if policy.resource_types and not all(map(policy.accepts, chain)):
        return Reason.RESOURCE_UNKNOWN, _NONE, needed, owner, standing.token.expires_at
    if standing.on_resources or has_role_grants or (needed and standing.elsewhere):
        allow, deny, until = _narrow_candidates(standing, permission, chain, needed, until)
        if allow or deny:
            candidates = (
                sorted(candidates[0] + allow, key=_order),
                sorted(candidates[1] + deny, key=_order),
            )
    return None, candidates, needed, owner, until


def _narrow_candidates(
    standing: Standing,
    permission: str,
    chain: tuple[ResourceFacts, ...],
    needed: int,
    until: float,
) -> tuple[list[Candidate], list[Candidate], float]:
    """What grants give that depend on the resource: allow rules, deny rules, and until when."""
    grants, until = grants_on_resources(standing, chain, until)
    allow, deny = _candidates(standing.policy, grants, permission)
    if needed != IN_ORGANIZATION:
        grants = grants_elsewhere(standing, chain, needed)
        deny += _candidates(standing.policy, grants, permission)[1]
    return allow, deny, until


def _check_agreement(question: Question, chain: tuple[ResourceFacts, ...]) -> None:
    # A chain that was left out would take the tenant's wall away.
    asked = question.resource
    if asked is None:
        if chain:
            raise ValueError("there are resources, but the question names none")
    elif not chain or chain[0].resource.id != asked.id or chain[0].resource.type != asked.type:
        raise ValueError("the question names a resource that is not the first one")


def judge_rules(
    candidates: Candidates,
    needed: int,
    owner: str | None,
    until: float,
    outcomes: "Outcomes",
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
        stopped = None
        for candidate in allow:
            if candidate[2] < needed:
                stopped = stopped or candidate
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
        if effect is Effect.DENY and needed == ANY_ORGANIZATION:
            reason, by = Reason.WRONG_ORGANIZATION, None
        elif effect is Effect.DENY and stopped is not None:
            reason, by = Reason.RESOURCE_ORGANIZATION_UNKNOWN, stopped
    return Decision(
        effect,
        reason,
        by[0] if by is not None else None,
        by[1] if by is not None else None,
        owner,
        until if outcomes.timeless else None,
        tuple(outcomes.too_expensive),
    )


class Outcomes:
    """Evaluates each condition at most once for one question, all within one budget."""

    __slots__ = (
        "_budget",
        "_chain",
        "_known",
        "_organization",
        "_question",
        "_standing",
        "_values",
        "timeless",
        "too_expensive",
    )

    def __init__(
        self,
        standing: Standing,
        question: Question,
        chain: tuple[ResourceFacts, ...],
        organization: str | None,
    ) -> None:
        self._standing = standing
        self._question = question
        self._chain = chain
        self._organization = organization
        self._known: dict[Condition, bool | Reason] = {}
        self._values: Values | None = None
        self._budget: Budget | None = None
        self.timeless = True
        """Whether nothing that was evaluated reads the time."""
        self.too_expensive: list[str] = []
        """Rules whose condition failed because it would have cost more than was left."""

    def values(self) -> Values:
        """What conditions may read."""
        values = self._values
        if values is None:
            values = self._values = _values(
                self._standing, self._question, self._chain, self._organization
            )
        return values

    def cost(self) -> float:
        """What of the budget was spent."""
        return 0.0 if self._budget is None else limits.CONDITION_COST_MAX - self._budget.left

    def evaluated(self) -> Mapping[Condition, bool | Reason]:
        """The conditions that were evaluated, with what they came to."""
        return self._known

    def of(self, candidate: Candidate) -> bool | Reason:
        """What the condition of a rule comes to."""
        condition = candidate[3]
        if condition is None:
            return True
        outcome = self._known.get(condition)
        if outcome is None:
            values = self._values or self.values()
            outcome = condition.evaluate_plain(values)
            if outcome is None:
                outcome = self._evaluate(condition, values, candidate[0])
            self._known[condition] = outcome
            if condition.reads_now:
                self.timeless = False
        return outcome

    def _evaluate(self, condition: Condition, values: Values, rule: str) -> bool | Reason:
        budget = self._budget
        if budget is None:
            budget = self._budget = Budget()
        outcome = condition.evaluate(values, budget)
        if budget.exceeded:
            self.too_expensive.append(rule)
            budget.exceeded = False
        return outcome


def _candidates(policy: Policy, grants: list[Grant], permission: str) -> Candidates:
    allow: list[Candidate] = []
    deny: list[Candidate] = []
    for grant in grants:
        allowing, denying = policy.rules_of(grant.role, permission)
        if allowing:
            reach = reach_of(grant)
            if reach < ANY_ORGANIZATION and permission.startswith(CONSOLE):
                allowing = ()
            allow += [(rule, grant.id, reach, condition) for rule, condition in allowing]
        if denying:
            deny += [(rule, grant.id, IN_ORGANIZATION, condition) for rule, condition in denying]
    if len(grants) > 1:
        allow.sort(key=_order)
        deny.sort(key=_order)
    return allow, deny


def reach_of(grant: Grant) -> int:
    """How far allow rules reach through a grant."""
    if not isinstance(grant.subject, ToUser):
        return IN_ORGANIZATION
    if grant.scope is EVERYWHERE:
        return ANY_ORGANIZATION
    return UNKNOWN_ORGANIZATION if isinstance(grant.scope, OnResource) else IN_ORGANIZATION


def _order(candidate: Candidate) -> tuple[str, str]:
    return candidate[:2]


def _values(
    standing: Standing,
    question: Question,
    chain: tuple[ResourceFacts, ...],
    organization: str | None,
) -> Values:
    """What conditions may read: of the actor, and of the question."""
    actor = actor_values(standing)
    if not chain:
        # No resource has no attributes, so `has()` is false; its type, id and organization are
        # not there to be read.
        return actor, {"context": question.context, "resource.attributes": NO_ATTRIBUTES}
    resource = chain[0].resource
    values = {
        "context": question.context,
        "resource.type": resource.type,
        "resource.id": resource.id,
        "resource.attributes": resource.attributes,
    }
    if organization is not None:
        values["resource.organization"] = organization
    return actor, values


def actor_values(standing: Standing) -> Mapping[str, Any]:
    """What conditions may read of the actor, by variable."""
    values = standing.actor_values
    if values is None:
        values = standing.actor_values = _actor_values(standing)
    return values


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
