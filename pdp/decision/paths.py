"""How an actor gets a permission: the rules that decide, and the grants that bring them. Pure.

Conditions are not evaluated: they may read a token and a request, which are unknown here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pdp.decision.evaluate import applicable
from pdp.decision.principal import Candidate, Principal
from pdp.model import Grant, ResourceFacts


@dataclass(frozen=True, slots=True)
class AccessPath:
    """A rule that applies, and the grant through which it applies."""

    rule_id: str
    grant: Grant
    condition: str
    """The condition in CEL; empty: none."""


@dataclass(frozen=True, slots=True)
class AccessPaths:
    """The decision depends on conditions alone: the actor is allowed if the condition of an allow
    rule is true and the conditions of all deny rules are false."""

    allowed_by: Sequence[AccessPath]
    """At least one."""
    denied_by: Sequence[AccessPath]
    """Deny rules, each with a condition."""


def access_paths(
    principal: Principal, permission: str, chain: tuple[ResourceFacts, ...]
) -> AccessPaths | None:
    """The ways in which `decide` may allow; None: it denies whatever the conditions yield."""
    refusal, (allow, deny), needed, _, _ = applicable(principal, permission, chain)
    allow = [candidate for candidate in allow if candidate[2] >= needed]
    if refusal is not None or not allow or any(candidate[3] is None for candidate in deny):
        return None
    grants = {grant.id: grant for grant in (*principal.wide, *principal.elsewhere)}
    for on_resource in principal.on_resources.values():
        grants.update((grant.id, grant) for grant in on_resource)
    for facts in chain:
        grants.update((grant.id, grant) for grant in facts.role_grants)

    def path(candidate: Candidate) -> AccessPath:
        rule_id, grant_id, _, condition = candidate
        return AccessPath(rule_id, grants[grant_id], "" if condition is None else condition.source)

    return AccessPaths(list(map(path, allow)), list(map(path, deny)))
