"""How an actor comes to a permission: the rules that decide, and the grants that bring them. Pure.

Conditions are not evaluated, for they may read a token and a request that are not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pdp.decision.evaluate import applicable
from pdp.decision.principal import Candidate, Standing
from pdp.model import Grant, ResourceFacts


@dataclass(frozen=True, slots=True)
class AccessPath:
    """A rule that applies, and the grant through which it does."""

    rule_id: str
    grant: Grant
    condition: str
    """CEL; empty: none."""


@dataclass(frozen=True, slots=True)
class AccessPaths:
    """Whether the actor may follows from conditions alone: one of the allowing ones has to hold,
    and each of the denying ones has to be evaluated to false."""

    allowed_by: Sequence[AccessPath]
    """At least one."""
    denied_by: Sequence[AccessPath]
    """Each with a condition."""


def access_paths(
    standing: Standing, permission: str, chain: tuple[ResourceFacts, ...]
) -> AccessPaths | None:
    """The ways in which `decide` may come to allow; None: it denies whatever conditions say."""
    refusal, (allow, deny), needed, _, _ = applicable(standing, permission, chain)
    allow = [candidate for candidate in allow if candidate[2] >= needed]
    if refusal is not None or not allow or any(candidate[3] is None for candidate in deny):
        return None
    grants = {grant.id: grant for grant in (*standing.wide, *standing.elsewhere)}
    for some in standing.on_resources.values():
        grants.update((grant.id, grant) for grant in some)
    for facts in chain:
        grants.update((grant.id, grant) for grant in facts.role_grants)

    def path(candidate: Candidate) -> AccessPath:
        rule_id, grant_id, _, condition = candidate
        return AccessPath(rule_id, grants[grant_id], "" if condition is None else condition.source)

    return AccessPaths(list(map(path, allow)), list(map(path, deny)))
