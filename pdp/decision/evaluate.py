"""Decides a question: may the principal do that?

The order of refusals: actor unknown, actor disabled, session revoked, membership unknown,
permission unknown, resource unknown; then the rules. The reason of a denial is the first that fits:
a deny rule applies; a deny rule applies because its condition failed; the resource belongs to
another organization; its organization is unknown; the condition of an allow rule failed; it was not
met; no rule allows it. If several rules or grants would decide alike, the smallest rule id decides,
then the smallest grant id.

Tenant isolation limits allow rules. If a resource of the chain belongs to an organization other
than the active one, they count only through a grant to the user that holds everywhere. If no
resource of the chain belongs to an organization, and the policy does not declare the type to have
no tenants, they count through a grant to the user everywhere or on a resource of the chain, because
such a grant names that very resource. Tenant isolation does not limit deny rules: they also count
through a grant to the user in the resource's organization, or in any organization while the
resource's is unknown. A grant to an organization role is for users who act in its organization, so
a grant in another organization never counts.

The permissions of the console (`policy.CONSOLE`) belong to no organization: allow rules count for
them only through a grant to the user that holds everywhere, and `*` does not match them. There is
one exception: `console:view` on a resource of the type `tenant-console` is also reached through a
grant to the user in the active organization. Deny rules count as ever.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pdp import limits
from pdp.decision.conditions import Condition
from pdp.decision.cost import Budget
from pdp.decision.fast_path import Values
from pdp.decision.policy import (
    CONSOLE,
    CONSOLE_VIEW,
    TENANT_CONSOLE,
    Policy,
    reaches_console,
)
from pdp.decision.principal import (
    ANY_ORGANIZATION,
    IN_ORGANIZATION,
    UNKNOWN_ORGANIZATION,
    Candidate,
    Candidates,
    Principal,
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
"""Decides. The arguments: the rules that apply, the reach that an allow rule needs (a number of
`principal`), the resource's organization, until when a decision may be reused, and the evaluation
of the conditions."""

_NONE: Final[Candidates] = ([], [])


def decide(
    principal: Principal,
    question: Question,
    chain: tuple[ResourceFacts, ...],
    judge: Judge | None = None,
) -> Decision:
    """Decides a question of a principal.

    Args:
        principal: the actor with their grants.
        question: the question.
        chain: the resource of the question as stored, then its ancestors, nearest first; empty if
            the question names no resource.
        judge: receives what the decision depends on, and returns the result of `judge_rules` for
            it.

    Raises:
        ValueError: question and chain do not agree.
    """
    _check_agreement(question, chain)
    refusal, candidates, needed, owner, until = applicable(principal, question.permission, chain)
    if refusal is not None:
        return Decision(Effect.DENY, refusal, None, None, owner, until)
    # A resource without organization by its type reads as "". An unknown organization is absent, so
    # that reading it is an error.
    organization = "" if owner is None and needed == IN_ORGANIZATION else owner
    outcomes = Outcomes(principal, question, chain, organization)
    return (judge or judge_rules)(candidates, needed, owner, until, outcomes)


def applicable(
    principal: Principal, permission: str, chain: tuple[ResourceFacts, ...]
) -> tuple[Reason | None, Candidates, int, str | None, float]:
    """Finds the rules that apply, before any condition is evaluated.

    Returns:
        The reason to deny whatever the rules say, or None; the rules that apply, both kinds in
           order;
        the reach that an allow rule needs; the resource's organization; until when all of this
           holds
        (seconds since 1970-01-01 UTC).
    """
    policy = principal.policy
    owner = None
    cross_tenant = False
    has_role_grants = False
    active = principal.token.actor.organization_id
    for facts in chain:
        organization = facts.resource.organization_id
        if organization is not None:
            owner = owner or organization
            cross_tenant = cross_tenant or organization != active
        if facts.role_grants:
            has_role_grants = True
    needed = IN_ORGANIZATION
    if cross_tenant:
        needed = ANY_ORGANIZATION
    elif owner is None and chain and not policy.has_no_tenants(chain[0].resource.type):
        needed = UNKNOWN_ORGANIZATION
    until = principal.reusable_until
    if principal.refusal is not None:
        return principal.refusal, _NONE, needed, owner, until
    of_tenant = permission == CONSOLE_VIEW and is_tenant_console(chain)
    memo = TENANT_CONSOLE if of_tenant else permission  # no permission is without a colon
    candidates = principal.candidates.get(memo)
    if candidates is None:
        if permission not in policy.permissions:
            # No grant was consulted, so only the token limits the reuse.
            return Reason.PERMISSION_UNKNOWN, _NONE, needed, owner, principal.token.expires_at
        candidates = _candidates(policy, principal.wide, permission, of_tenant=of_tenant)
        principal.candidates[memo] = candidates
    if policy.resource_types and not all(map(policy.accepts, chain)):
        return Reason.RESOURCE_UNKNOWN, _NONE, needed, owner, principal.token.expires_at
    if principal.on_resources or has_role_grants or (needed and principal.elsewhere):
        allow, deny, until = _narrow_candidates(principal, permission, chain, needed, until)
        if allow or deny:
            candidates = (
                sorted(candidates[0] + allow, key=_order),
                sorted(candidates[1] + deny, key=_order),
            )
    return None, candidates, needed, owner, until


def _narrow_candidates(
    principal: Principal,
    permission: str,
    chain: tuple[ResourceFacts, ...],
    needed: int,
    until: float,
) -> tuple[list[Candidate], list[Candidate], float]:
    """Rules through grants that depend on the resource: allow rules, deny rules, and until when."""
    grants, until = grants_on_resources(principal, chain, until)
    allow, deny = _candidates(principal.policy, grants, permission)
    if needed != IN_ORGANIZATION:
        grants = grants_elsewhere(principal, chain, needed)
        deny += _candidates(principal.policy, grants, permission)[1]
    return allow, deny, until


def _check_agreement(question: Question, chain: tuple[ResourceFacts, ...]) -> None:
    # Without its chain a resource would escape tenant isolation.
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
    """Evaluates deny rules until one applies, then allow rules until one does."""
    allow, deny = candidates
    effect, reason, by = Effect.DENY, Reason.PERMISSION_NOT_GRANTED, None
    for candidate in deny:
        outcome = outcomes.of(candidate)
        if outcome is True:
            reason, by = Reason.DENIED_BY_RULE, candidate
            break
        if outcome is not False and by is None:
            reason, by = outcome, candidate  # the condition failed, so the rule applies
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
    """Evaluates each condition at most once for a question, all within the same budget."""

    __slots__ = (
        "_budget",
        "_chain",
        "_known",
        "_organization",
        "_principal",
        "_question",
        "_values",
        "timeless",
        "too_expensive",
    )

    def __init__(
        self,
        principal: Principal,
        question: Question,
        chain: tuple[ResourceFacts, ...],
        organization: str | None,
    ) -> None:
        self._principal = principal
        self._question = question
        self._chain = chain
        self._organization = organization
        self._known: dict[Condition, bool | Reason] = {}
        self._values: Values | None = None
        self._budget: Budget | None = None
        self.timeless = True
        """Whether no evaluated condition reads the time."""
        self.too_expensive: list[str] = []
        """Rules whose condition failed because it costs more than the budget had left."""

    def values(self) -> Values:
        """The values that conditions may read."""
        values = self._values
        if values is None:
            values = self._values = _values(
                self._principal, self._question, self._chain, self._organization
            )
        return values

    def cost(self) -> float:
        """How much of the budget was spent."""
        return 0.0 if self._budget is None else limits.CONDITION_COST_MAX - self._budget.left

    def evaluated(self) -> Mapping[Condition, bool | Reason]:
        """The evaluated conditions with their results."""
        return self._known

    def of(self, candidate: Candidate) -> bool | Reason:
        """The result of a rule's condition."""
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


def _candidates(
    policy: Policy, grants: list[Grant], permission: str, *, of_tenant: bool = False
) -> Candidates:
    allow: list[Candidate] = []
    deny: list[Candidate] = []
    for grant in grants:
        allowing, denying = policy.rules_of(grant.role, permission)
        if allowing:
            reach = reach_of(grant)
            if permission.startswith(CONSOLE) and not reaches_console(grant, of_tenant=of_tenant):
                allowing = ()
            allow += [(rule, grant.id, reach, condition) for rule, condition in allowing]
        if denying:
            deny += [(rule, grant.id, IN_ORGANIZATION, condition) for rule, condition in denying]
    if len(grants) > 1:
        allow.sort(key=_order)
        deny.sort(key=_order)
    return allow, deny


def reach_of(grant: Grant) -> int:
    """The reach of allow rules through a grant."""
    if not isinstance(grant.subject, ToUser):
        return IN_ORGANIZATION
    if grant.scope is EVERYWHERE:
        return ANY_ORGANIZATION
    return UNKNOWN_ORGANIZATION if isinstance(grant.scope, OnResource) else IN_ORGANIZATION


def is_tenant_console(chain: tuple[ResourceFacts, ...]) -> bool:
    """Whether a question is about the console of one organization."""
    return bool(chain) and chain[0].resource.type == TENANT_CONSOLE


def _order(candidate: Candidate) -> tuple[str, str]:
    return candidate[:2]


def _values(
    principal: Principal,
    question: Question,
    chain: tuple[ResourceFacts, ...],
    organization: str | None,
) -> Values:
    """The values that conditions may read, of the actor and of the question."""
    actor = actor_values(principal)
    if not chain:
        # Without a resource `has()` is false for every attribute; its type, id and organization are
        # absent.
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


def actor_values(principal: Principal) -> Mapping[str, Any]:
    """The values of the actor that conditions may read, by variable."""
    values = principal.actor_values
    if values is None:
        values = principal.actor_values = _actor_values(principal)
    return values


def _actor_values(principal: Principal) -> dict[str, Any]:
    token = principal.token
    actor = token.actor
    values = {
        "actor.id": actor.user_id,
        "actor.session": actor.session_id,
        "actor.organization": actor.organization_id or "",
        "actor.organization_role": principal.organization_role,
        "actor.impersonator": actor.impersonator_id or "",
        "actor.attributes": principal.user.user.attributes if principal.user else {},
        "actor.claims": token.claims,
        "actor.claimed_permissions": token.claimed_permissions,
        "now": principal.now,
    }
    # An unset value stays absent, so reading it is an error: an absent factor never counts as a
    # fresh one, and a role with unknown permissions never counts as one without permissions.
    permissions = _organization_permissions(principal)
    if permissions is not None:
        values["actor.organization_permissions"] = permissions
    if token.first_factor_minutes is not None:
        values["actor.first_factor_minutes"] = token.first_factor_minutes
    if token.second_factor_minutes is not None:
        values["actor.second_factor_minutes"] = token.second_factor_minutes
    return values


def _organization_permissions(principal: Principal) -> tuple[str, ...] | None:
    """The permissions of the actor's organization role; None: unknown."""
    role = principal.organization_role
    return principal.policy.organization_permissions.get(role) if role else ()
