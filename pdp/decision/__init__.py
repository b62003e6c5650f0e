"""Room 4: from values to a decision. Pure.

In:  a policy, a verified token, facts, a question (values of `pdp.model`).
Out: a `Decision`, always with its reason.

Never: I/O, a clock of its own, a logger, a cache of decisions, gRPC, SQL.

Invariants:
1. Default deny; deny wins.
2. An error is never an allow: a condition that fails makes an allow rule not apply and a deny
   rule apply. Only the boolean `True` allows.
3. The token says who, the facts say what: no role or membership comes from a claim.
4. On a resource of an organization that is not the active one, only a grant to the user that
   holds everywhere can allow. On one whose organization is not known, only that or a grant to the
   user on the resource.
5. The answer depends on nothing but the arguments: same values, same decision. What is remembered
   (compiled conditions, rules found in a policy, grants sorted by resource) is bounded and belongs
   to immutable values.

A `Policy` and a `Condition` may be shared between threads, a `Standing` is for one. `evaluate.py`
has the order of refusals and reasons, `conditions.py` what a condition may be.
"""

from pdp.decision.condition_reads import Reads, reads_of
from pdp.decision.condition_steps import branches_of
from pdp.decision.conditions import Condition, ConditionInvalid, compile_condition
from pdp.decision.evaluate import decide
from pdp.decision.explain import explain
from pdp.decision.explanation import Change, Explanation, Step
from pdp.decision.partial import Plan, plan_for
from pdp.decision.paths import AccessPath, AccessPaths, access_paths
from pdp.decision.policy import Policy, PolicyEntity, build_policy
from pdp.decision.principal import Standing, holds, prepare
from pdp.decision.routing import Target, target_of
from pdp.decision.search import ActorSearch, Search, search_for, search_for_actors
from pdp.decision.situation import Account, Situation, account_of
from pdp.decision.step_up import with_step_up

__all__ = [
    "AccessPath",
    "AccessPaths",
    "Account",
    "ActorSearch",
    "Change",
    "Condition",
    "ConditionInvalid",
    "Explanation",
    "Plan",
    "Policy",
    "PolicyEntity",
    "Reads",
    "Search",
    "Situation",
    "Standing",
    "Step",
    "Target",
    "access_paths",
    "account_of",
    "branches_of",
    "build_policy",
    "compile_condition",
    "decide",
    "explain",
    "holds",
    "plan_for",
    "prepare",
    "reads_of",
    "search_for",
    "search_for_actors",
    "target_of",
    "with_step_up",
]
