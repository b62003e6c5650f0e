"""Room 4: makes a decision from values. Pure.

In:  a policy, a verified token, facts, a question (values of `pdp.model`).
Out: a `Decision`, always with its reason.

Never: I/O, a clock of its own, a logger, a cache of decisions, gRPC, SQL.

Invariants:
1. Default deny; deny wins.
2. An error is never an allow: if a condition fails, its allow rule does not apply and its deny rule
   does. Only the boolean `True` allows.
3. The token proves the identity; roles and memberships come from the facts, never from a claim.
4. If a resource belongs to an organization other than the active one, only a grant to the user that
   holds everywhere can allow. If its organization is unknown, a grant to the user on the resource
   can allow too.
5. A decision depends on nothing but the arguments: same values, same decision. Memos (compiled
   conditions, rules found in a policy, grants sorted by resource) are bounded and belong to
   immutable values.

Threads may share a `Policy` and a `Condition`, but not a `Principal`. `evaluate.py` documents the
order of refusals and reasons, `conditions.py` the language of conditions.
"""

from pdp.decision.condition_compiler import ConditionInvalid
from pdp.decision.condition_reads import Reads, reads_of
from pdp.decision.condition_steps import branches_of
from pdp.decision.conditions import Condition, compile_condition
from pdp.decision.evaluate import decide
from pdp.decision.explain import explain
from pdp.decision.explanation import Change, Explanation, Step
from pdp.decision.partial import Plan, plan_for
from pdp.decision.paths import AccessPath, AccessPaths, access_paths
from pdp.decision.policy import (
    CONSOLE,
    CONSOLE_VIEW,
    TENANT_CONSOLE,
    Policy,
    PolicyEntity,
    build_policy,
    may_reach_console,
)
from pdp.decision.principal import Principal, holds, resolve_principal
from pdp.decision.routing import Target, target_of
from pdp.decision.search import ActorSearch, Search, search_for, search_for_actors
from pdp.decision.situation import Account, NamedActor, Situation, account_of
from pdp.decision.step_up import with_step_up

__all__ = [
    "CONSOLE",
    "CONSOLE_VIEW",
    "TENANT_CONSOLE",
    "AccessPath",
    "AccessPaths",
    "Account",
    "ActorSearch",
    "Change",
    "Condition",
    "ConditionInvalid",
    "Explanation",
    "NamedActor",
    "Plan",
    "Policy",
    "PolicyEntity",
    "Principal",
    "Reads",
    "Search",
    "Situation",
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
    "may_reach_console",
    "plan_for",
    "reads_of",
    "resolve_principal",
    "search_for",
    "search_for_actors",
    "target_of",
    "with_step_up",
]
