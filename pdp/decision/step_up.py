"""Finds the verification of a factor that would make a denial an allow (a step up in RFC 9470).

Every reported step up was verified: the question is decided again with a token whose factors are as
old as a condition allows, and only an ALLOW counts. So a denial has a step up only if it depends on
nothing but the age of a factor.
"""

import copy
from dataclasses import replace
from functools import lru_cache
from typing import Final

from pdp.decision.condition_changes import proposals_of
from pdp.decision.conditions import Condition
from pdp.decision.evaluate import decide, judge_rules
from pdp.decision.outcomes import Outcomes
from pdp.decision.principal import Candidates, Principal
from pdp.model import Decision, Effect, Factor, Question, Reason, ResourceFacts, StepUp

_LIFTABLE: Final = frozenset(
    (
        Reason.CONDITION_NOT_MET,
        Reason.ATTRIBUTE_MISSING,
        Reason.CONDITION_FAILED,
        Reason.DENIED_BY_RULE,
        # These reasons take precedence over the conditions of grants that do reach the resource.
        Reason.WRONG_ORGANIZATION,
        Reason.RESOURCE_ORGANIZATION_UNKNOWN,
    )
)
_FIRST: Final = "actor.first_factor_minutes"
_SECOND: Final = "actor.second_factor_minutes"
_AGES_MAX: Final = 12
_COST_MAX: Final = 200.0
"""The most that the conditions of a decision may cost, in units of their budget: the decision is
repeated up to 40 times."""
_CONDITIONS_KEPT: Final = 1_024


def with_step_up(
    decision: Decision,
    principal: Principal,
    question: Question,
    chain: tuple[ResourceFacts, ...],
) -> Decision:
    """Returns the decision; if it is a denial that a step up would lift, with that step up."""
    if decision.reason not in _LIFTABLE or not principal.policy.reads_factors():
        return decision
    found = _step_up(principal, question, chain)
    return decision if found is None else decision._replace(step_up=found)


def _step_up(
    principal: Principal, question: Question, chain: tuple[ResourceFacts, ...]
) -> StepUp | None:
    conditions: set[Condition] = set()
    costs: list[float] = []

    def noting(
        candidates: Candidates, needed: int, owner: str | None, until: float, outcomes: Outcomes
    ) -> Decision:
        allow, deny = candidates
        found = (candidate[3] for candidate in (*allow, *deny))
        conditions.update(condition for condition in found if condition is not None)
        decision = judge_rules(candidates, needed, owner, until, outcomes)
        costs.append(outcomes.cost())
        return decision

    decide(principal, question, chain, noting)
    if not costs or costs[0] > _COST_MAX:
        return None
    ages = {age for condition in conditions for age in _ages_in(condition)}
    greatest = sorted(ages, reverse=True)[:_AGES_MAX]

    def allows(factor: Factor, age: float) -> bool:
        decision = decide(_with_age(principal, factor, age), question, chain)
        return decision.effect is Effect.ALLOW

    for factor in Factor:
        if allows(factor, 0.0):  # the age right after a verification
            return StepUp(factor, next((age for age in greatest if allows(factor, age)), 0.0))
    return None


@lru_cache(maxsize=_CONDITIONS_KEPT)
def _ages_in(condition: Condition) -> tuple[float, ...]:
    """Ages in minutes that a condition compares the age of a factor with, and values close to
    them."""
    parts = condition.parts(({}, {})) if "factor_minutes" in condition.source else None
    if parts is None:
        return ()
    return tuple(
        value
        for path, value in proposals_of(parts)
        if path.variable in (_FIRST, _SECOND) and isinstance(value, float) and value >= 0
    )


def _with_age(principal: Principal, factor: Factor, minutes: float) -> Principal:
    """The same principal with factors that were verified so long ago, unless the last verification
    is more recent. Nothing else of a `Principal` depends on factors."""
    token = principal.token
    if factor is not Factor.SECOND:
        age = token.first_factor_minutes
        token = replace(token, first_factor_minutes=minutes if age is None else min(age, minutes))
    if factor is not Factor.FIRST:
        age = token.second_factor_minutes
        token = replace(token, second_factor_minutes=minutes if age is None else min(age, minutes))
    tried = copy.copy(principal)
    tried.token = token
    tried.actor_values = None
    return tried
