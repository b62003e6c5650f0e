"""From the rules of a policy to filters over a row *and its actor*, for one permission and type.

As `pdp.decision.partial` for one actor, with the actor unknown: where that reads a grant, a filter
here holds a node that the database answers when a statement runs.
"""

from dataclasses import dataclass
from typing import Final

from pdp_filters import (
    CHAIN,
    FALSE,
    TRUE,
    Every,
    Field,
    Filter,
    Kind,
    KindIs,
    Some,
    Stored,
    all_of,
    any_of,
    walk,
)
from pdp_filters.ir import absent

from pdp import limits
from pdp.decision.conditions import Condition
from pdp.decision.fast_path import Values
from pdp.decision.forms import Forms, Unexpressed
from pdp.decision.policy import Policy
from pdp.decision.residual import cost_max, forms_of
from pdp.errors import FilterUnsupported

_ORGANIZATION: Final = Field(("organization",), 1)
_IS_KNOWN: Final = Some(CHAIN, KindIs(_ORGANIZATION, frozenset((Kind.TEXT,))))
"""A resource of the chain belongs to an organization."""

Roles = tuple[str, ...]


# --- nodes that the database answers. Each is true or false for every row and actor ---------------


@dataclass(frozen=True, slots=True)
class HoldsEverywhere(Filter):
    """The user holds one of the roles everywhere, in any organization."""

    roles: Roles


@dataclass(frozen=True, slots=True)
class HoldsWidely(Filter):
    """The actor holds one of the roles on all of the active organization, or everywhere."""

    roles: Roles
    negated: bool = False


@dataclass(frozen=True, slots=True)
class InActive(Filter):
    """The organization of a resource of the chain is the active one."""


@dataclass(frozen=True, slots=True)
class InActiveWhereHeld(Filter):
    """The same, and `HoldsWidely`. One comparison, so that an index serves it."""

    roles: Roles


@dataclass(frozen=True, slots=True)
class GrantedToUser(Filter):
    """The user holds one of the roles on this resource of the chain."""

    roles: Roles


@dataclass(frozen=True, slots=True)
class GrantedToRole(Filter):
    """The actor's organization role holds one of the roles on this resource of the chain."""

    roles: Roles


@dataclass(frozen=True, slots=True)
class NotGranted(Filter):
    """Neither holds one of the roles on this resource of the chain."""

    roles: Roles


@dataclass(frozen=True, slots=True)
class HoldsNothingElsewhere(Filter):
    """The user holds none of the roles in an organization other than the active one."""

    roles: Roles


@dataclass(frozen=True, slots=True)
class NotElsewhere(Filter):
    """The organization of a resource of the chain is none of those."""

    roles: Roles


# --- rules ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compiled:
    """The rules for one permission on resources of one type."""

    allow: Filter
    """True: an allow rule applies."""
    spared: Filter
    """True: no deny rule applies."""
    allowing: tuple[str, ...]
    """The ids of the allow rules."""
    denying: tuple[str, ...]
    """The ids of the deny rules."""


@dataclass(frozen=True, slots=True)
class _Applied:
    """A condition, where it is a rule of any role, and the roles through which it is."""

    rule: str
    """The first."""
    condition: Condition | None
    roles: Roles


def compile_rules(
    policy: Policy, permission: str, resource_type: str, *, is_alone: bool = False
) -> Compiled:
    """Compiles the rules. `is_alone`: nothing is above the rows.

    Raises:
        FilterUnsupported: a condition reads what the database does not know, or cannot be written
            as SQL. Names all such parts.
        LimitExceeded: a condition has too many nodes.
        ValueError: the permission is not declared.
    """
    if permission not in policy.permissions:
        raise ValueError(f"the policy does not declare the permission {permission}")
    allow, deny = (_applied(policy, permission, deny=deny) for deny in (False, True))
    has_no_tenants = policy.has_no_tenants(resource_type)
    values: Values = ({}, {"resource.type": resource_type})
    conditions = {rule.condition for rule in (*allow, *deny) if rule.condition is not None}
    is_affordable = (
        sum(cost_max(condition, values) for condition in conditions) <= limits.CONDITION_COST_MAX
    )

    def forms(applied: _Applied) -> Forms:
        if applied.condition is None:
            return Forms(TRUE, FALSE)
        return forms_of(
            applied.condition,
            values,
            has_no_tenants=has_no_tenants,
            is_affordable=is_affordable,
            actor_is_known=False,
        )

    allowing = [
        (rule, all_of(forms(rule).true, _where(rule.roles, has_no_tenants, is_alone)))
        for rule in allow
    ]
    sparing = [
        (rule, any_of(forms(rule).false, _nowhere(rule.roles, has_no_tenants))) for rule in deny
    ]
    _refuse_unexpressed([*allowing, *sparing])
    types = policy.resource_types.items()
    must_be_stored = tuple(sorted(name for name, known in types if known.stored_required))
    stored = [Stored(must_be_stored)] if must_be_stored else []
    return Compiled(
        all_of(any_of(*(node for _, node in allowing)), *stored),
        all_of(*(node for _, node in sparing)),
        _ids(policy, permission, deny=False),
        _ids(policy, permission, deny=True),
    )


def _applied(policy: Policy, permission: str, *, deny: bool) -> list[_Applied]:
    found: dict[Condition | None, tuple[str, list[str]]] = {}
    for role in sorted(policy.role_names()):
        matched = policy.rules_of(role, permission)
        for rule, condition in matched.deny if deny else matched.allow:
            first, roles = found.setdefault(condition, (rule, []))
            found[condition] = (min(first, rule), roles if role in roles else [*roles, role])
    return sorted(
        (_Applied(rule, condition, tuple(roles)) for condition, (rule, roles) in found.items()),
        key=lambda applied: applied.rule,
    )


def _ids(policy: Policy, permission: str, *, deny: bool) -> tuple[str, ...]:
    found = set()
    for role in policy.role_names():
        matched = policy.rules_of(role, permission)
        found |= {rule for rule, _ in (matched.deny if deny else matched.allow)}
    return tuple(sorted(found))


def _refuse_unexpressed(found: list[tuple[_Applied, Filter]]) -> None:
    missing = []
    for applied, compiled in found:
        for node in walk(compiled):
            if isinstance(node, Unexpressed):
                line = node.condition.count("\n", 0, node.offset) + 1
                column = node.offset - node.condition.rfind("\n", 0, node.offset)
                missing.append((applied.rule, node.operator, line, column))
    if missing:
        raise FilterUnsupported(list(dict.fromkeys(missing)))


def _each(node: Filter) -> Filter:
    return Every(CHAIN, node)


def _one(node: Filter) -> Filter:
    return Some(CHAIN, node)


def _where(roles: Roles, has_no_tenants: bool, is_alone: bool) -> Filter:
    """Where an allow rule applies."""
    not_foreign = _each(any_of(absent(_ORGANIZATION), InActive()))
    # A row with nothing above it is not of another organization if it is in the active one.
    # PostgreSQL evaluates in this order, and what a row does not need is never read: most rows are
    # of the active organization, and to look for an id among many takes longest.
    if has_no_tenants:
        within = all_of(HoldsWidely(roles), not_foreign)
        through_role = not_foreign
    elif is_alone:
        within = _one(InActiveWhereHeld(roles))
        through_role = _one(InActive())
    else:
        within = all_of(_one(InActiveWhereHeld(roles)), not_foreign)
        through_role = all_of(_one(InActive()), not_foreign)
    return any_of(
        within,
        HoldsEverywhere(roles),
        all_of(not_foreign, _one(GrantedToUser(roles))),
        all_of(through_role, _one(GrantedToRole(roles))),
    )


def _nowhere(roles: Roles, has_no_tenants: bool) -> Filter:
    """Where a deny rule does not apply."""
    is_known: list[Filter] = [] if has_no_tenants else [_IS_KNOWN]
    others = _each(any_of(absent(_ORGANIZATION), NotElsewhere(roles)))
    return all_of(
        HoldsWidely(roles, negated=True),
        _each(NotGranted(roles)),
        any_of(HoldsNothingElsewhere(roles), all_of(*is_known, others)),
    )
