"""The conditions of a question: the values that they read, and their results."""

from collections.abc import Mapping
from typing import Any

from pdp import limits
from pdp.decision.conditions import Condition
from pdp.decision.cost import Budget
from pdp.decision.fast_path import Values
from pdp.decision.principal import Candidate, Principal
from pdp.model import NO_ATTRIBUTES, Question, Reason, ResourceFacts


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
