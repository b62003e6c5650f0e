"""Which verification of a factor would make a denial an allow (RFC 9470 calls that a step up).

Nothing is reported that was not verified: the same question is decided again with a token whose
factors are as old as a condition allows, and only an ALLOW counts. So a denial has a step up only
if nothing but the age of a factor keeps it from being an allow.
"""

import copy
from dataclasses import replace
from functools import lru_cache
from typing import Final

from pdp.decision.condition_changes import proposals_of
from pdp.decision.conditions import Condition
from pdp.decision.evaluate import Outcomes, decide, judge_rules
from pdp.decision.principal import Candidates, Standing
from pdp.model import Decision, Effect, Factor, Question, Reason, ResourceFacts, StepUp

_LIFTABLE: Final = frozenset(
    (
        Reason.CONDITION_NOT_MET,
        Reason.ATTRIBUTE_MISSING,
        Reason.CONDITION_FAILED,
        Reason.DENIED_BY_RULE,
        # These come before the conditions of grants that do reach the resource.
        Reason.WRONG_ORGANIZATION,
        Reason.RESOURCE_ORGANIZATION_UNKNOWN,
    )
)
_FIRST: Final = "actor.first_factor_minutes"
_SECOND: Final = "actor.second_factor_minutes"
_AGES_MAX: Final = 12
_COST_MAX: Final = 200.0
"""Of the conditions of one decision, in the units of their budget: it is made 40 times."""
_CONDITIONS_KEPT: Final = 1_024


def with_step_up(
    decision: Decision,
    standing: Standing,
    question: Question,
    chain: tuple[ResourceFacts, ...],
) -> Decision:
    """The decision, and if it is a denial that a step up would lift, with that."""
    if decision.reason not in _LIFTABLE or not standing.policy.reads_factors():
        return decision
    found = _step_up(standing, question, chain)
    return decision if found is None else decision._replace(step_up=found)


def _step_up(
    standing: Standing, question: Question, chain: tuple[ResourceFacts, ...]
) -> StepUp | None:
    conditions: set[Condition] = set()
    costs: list[float] = []

    def noting(
        candidates: Candidates, needed: int, owner: str | None, until: float, outcomes: Outcomes
    ) -> Decision:
        allow, deny = candidates
        conditions.update(one[3] for one in (*allow, *deny) if one[3] is not None)
        decision = judge_rules(candidates, needed, owner, until, outcomes)
        costs.append(outcomes.cost())
        return decision

    decide(standing, question, chain, noting)
    if not costs or costs[0] > _COST_MAX:
        return None
    ages = sorted({age for one in conditions for age in _ages_in(one)}, reverse=True)[:_AGES_MAX]

    def allows(factor: Factor, age: float) -> bool:
        decision = decide(_with_age(standing, factor, age), question, chain)
        return decision.effect is Effect.ALLOW

    for factor in Factor:
        if allows(factor, 0.0):  # as it is right after a verification
            return StepUp(factor, next((age for age in ages if allows(factor, age)), 0.0))
    return None


@lru_cache(maxsize=_CONDITIONS_KEPT)
def _ages_in(condition: Condition) -> tuple[float, ...]:
    """Ages in minutes that a condition compares the age of a factor with, or nearly."""
    if "factor_minutes" not in condition.source:
        return ()
    return tuple(
        value
        for path, value in proposals_of(condition, ({}, {}))
        if path.variable in (_FIRST, _SECOND) and isinstance(value, float) and value >= 0
    )


def _with_age(standing: Standing, factor: Factor, minutes: float) -> Standing:
    """The same actor, with factors that were verified so long ago, or when they were, if that was
    later. Nothing else of a `Standing` depends on factors."""
    token = standing.token
    if factor is not Factor.SECOND:
        age = token.first_factor_minutes
        token = replace(token, first_factor_minutes=minutes if age is None else min(age, minutes))
    if factor is not Factor.FIRST:
        age = token.second_factor_minutes
        token = replace(token, second_factor_minutes=minutes if age is None else min(age, minutes))
    tried = copy.copy(standing)
    tried.token = token
    tried.actor_values = None
    return tried
