"""Plans which resources of a type an actor may use: none, all, or those that a filter selects.

A plan applies the rules of `decide` with the resource unknown: the same refusals, grants, reach of
allow rules and deny rules. An allow rule counts if its condition is definitely true, a deny rule if
its condition is not definitely false. So a filter selects exactly the resources for which `decide`
allows.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pdp_filters import (
    CHAIN,
    FALSE,
    TRUE,
    And,
    Compare,
    Every,
    Field,
    Filter,
    Kind,
    KindIs,
    OneOf,
    Operator,
    Or,
    Some,
    Stored,
    all_of,
    any_of,
    walk,
)
from pdp_filters.ir import absent, every, some

from pdp import limits
from pdp.decision.conditions import Condition
from pdp.decision.evaluate import reach_of
from pdp.decision.fast_path import Values
from pdp.decision.forms import Forms, Unexpressed
from pdp.decision.outcomes import actor_values
from pdp.decision.policy import CONSOLE, CONSOLE_VIEW, TENANT_CONSOLE, reaches_console
from pdp.decision.principal import (
    ANY_ORGANIZATION,
    IN_ORGANIZATION,
    Principal,
    edge_of,
    holds,
    is_to_actor,
)
from pdp.decision.residual import check_size, cost_max, forms_of, parts_of
from pdp.model import Attributes, Grant, InOrganization, OnResource, Reason

# Fields of a resource of the chain.
_TYPE: Final = Field(("type",), 1)
_ID: Final = Field(("id",), 1)
_ORGANIZATION: Final = Field(("organization",), 1)

_IS_KNOWN: Final = Some(CHAIN, KindIs(_ORGANIZATION, frozenset((Kind.TEXT,))))
"""A resource of the chain belongs to an organization."""


class Unsupported(NamedTuple):
    """A part of a rule's condition that no filter can express."""

    rule_id: str
    operator: str
    line: int
    column: int


class Plan(NamedTuple):
    """The resources of a type on which an actor may use a permission."""

    filter: Filter
    """`FALSE`: none; `TRUE`: all."""
    reason: Reason | None
    """Why no resource is allowed whatever the rules say; None: the rules decide."""
    reusable_until: float | None
    """As in a `Decision`."""
    unsupported: tuple[Unsupported, ...] = ()
    """The parts that the filter lacks. If there are any, the filter selects more than is allowed,
    and each selected resource must be checked."""


_Ref = tuple[str, str]
"""Type and id of a resource: cheaper to hash than a `ResourceRef`."""


@dataclass(slots=True)
class _Places:
    """The scopes in which a role is held, or in which a rule applies."""

    reaches: set[int] = field(default_factory=set)
    """Reaches of allow rules through grants that do not depend on single resources."""
    resources: dict[int, set[_Ref]] = field(default_factory=dict)
    """By reach: the resources of grants, which also count for their descendants."""
    organizations: set[str] = field(default_factory=set)
    """Organizations other than the active one. Only deny rules count there."""

    def add(self, other: "_Places") -> None:
        """Adds the scopes of another role."""
        self.reaches |= other.reaches
        for reach, refs in other.resources.items():
            self.resources.setdefault(reach, set()).update(refs)
        self.organizations |= other.organizations


_Found = dict[Condition | None, tuple[str, _Places]]
"""By condition: the first rule that has it, and where a rule with it applies."""


def plan_for(
    principal: Principal,
    permission: str,
    resource_type: str,
    context: Attributes,
    role_grants: Iterable[Grant] = (),
) -> Plan:
    """Plans for the resources of a type.

    Args:
        principal: the actor.
        permission: a permission.
        resource_type: the type of the resources; their ancestors may have any type.
        context: the values of the request that conditions may read.
        role_grants: all grants on single resources to the actor's organization role; grants to
            others are ignored.

    Raises:
        LimitExceeded: the filter would have more than `PLAN_NODES_MAX` nodes and values.
    """
    policy = principal.policy
    if principal.refusal is not None:
        return Plan(FALSE, principal.refusal, principal.reusable_until)
    if permission not in policy.permissions:
        return Plan(FALSE, Reason.PERMISSION_UNKNOWN, principal.token.expires_at)
    of_tenant = permission == CONSOLE_VIEW and resource_type == TENANT_CONSOLE
    allow, deny, until = _rules(principal, permission, role_grants, of_tenant=of_tenant)
    has_no_tenants = policy.has_no_tenants(resource_type)
    values: Values = (
        actor_values(principal),
        {"context": context, "resource.type": resource_type},
    )
    used = (condition for condition in allow.keys() | deny.keys() if condition is not None)
    costs = (cost_max(condition, values) for condition in used)
    is_affordable = sum(costs) <= limits.CONDITION_COST_MAX
    conditions = _Conditions(values, has_no_tenants=has_no_tenants, is_affordable=is_affordable)
    active = principal.token.actor.organization_id
    allowed = any_of(
        *(
            all_of(conditions.forms(condition, rule).true, _where(places, active, has_no_tenants))
            for condition, (rule, places) in allow.items()
        )
    )
    spared = [
        any_of(conditions.forms(condition, rule).false, _nowhere(places, has_no_tenants))
        for condition, (rule, places) in deny.items()
    ]
    types = policy.resource_types.items()
    must_be_stored = tuple(sorted(name for name, known in types if known.stored_required))
    stored = [Stored(must_be_stored)] if must_be_stored else []
    found = all_of(*spared, allowed, *stored)
    check_size(sum(len(node.values) if isinstance(node, OneOf) else 1 for node in walk(found)))
    missing = dict.fromkeys(
        conditions.unsupported(node) for node in walk(found) if isinstance(node, Unexpressed)
    )
    if missing:
        found = _without_unexpressed(found)
    return Plan(found, None, None if conditions.reads_now else until, tuple(missing))


def _rules(
    principal: Principal, permission: str, role_grants: Iterable[Grant], *, of_tenant: bool
) -> tuple[_Found, _Found, float]:
    """Allow and deny rules for a permission, with the scopes in which they apply, and until
    when."""
    roles, until = _roles(principal, role_grants)
    allow: _Found = {}
    deny: _Found = {}
    for role, places in roles.items():
        matched = principal.policy.rules_of(role, permission)
        allowed = places
        if permission.startswith(CONSOLE):
            allowed = _of_console(principal, role, of_tenant=of_tenant)
        allowing = matched.allow if allowed is places or allowed.reaches else ()
        for found, rules, added in ((allow, allowing, allowed), (deny, matched.deny, places)):
            for rule_id, condition in rules:
                first, known = found.get(condition, (rule_id, _Places()))
                known.add(added)
                found[condition] = (min(first, rule_id), known)
    return allow, deny, until


def _of_console(principal: Principal, role: str, *, of_tenant: bool) -> _Places:
    """Where allow rules for the console count: as in `evaluate`."""
    grants = (grant for grant in principal.wide if grant.role == role)
    return _Places(
        {reach_of(grant) for grant in grants if reaches_console(grant, of_tenant=of_tenant)}
    )


def _roles(principal: Principal, role_grants: Iterable[Grant]) -> tuple[dict[str, _Places], float]:
    """The scopes in which the actor holds each role now, and the next edge of a grant."""
    roles: defaultdict[str, _Places] = defaultdict(_Places)
    until = principal.reusable_until
    for grant in principal.wide:
        roles[grant.role].reaches.add(reach_of(grant))
    for grant in principal.elsewhere:
        assert isinstance(grant.scope, InOrganization)  # noqa: S101  # for the type checker
        organization = grant.scope.organization_id
        roles[grant.role].organizations.add(organization)
    on_resources = (grant for grants in principal.on_resources.values() for grant in grants)
    for grant in (*on_resources, *role_grants):
        scope = grant.scope
        if not isinstance(scope, OnResource) or not is_to_actor(grant, principal):
            continue
        if grant.not_before is not None or grant.expires_at is not None:
            until = min(until, edge_of(grant, principal.now))
            if not holds(grant, principal.now):
                continue
        places = roles[grant.role]
        ref = (scope.resource.type, scope.resource.id)
        places.resources.setdefault(reach_of(grant), set()).add(ref)
    return roles, until


def _where(places: _Places, active: str | None, has_no_tenants: bool) -> Filter:
    """A filter of the resources to which an allow rule applies."""
    return any_of(
        *(_within_reach(reach, active, has_no_tenants) for reach in sorted(places.reaches)),
        *(
            all_of(_within_reach(reach, active, has_no_tenants), some(CHAIN, _is_one_of(refs)))
            for reach, refs in sorted(places.resources.items())
        ),
    )


def _within_reach(reach: int, active: str | None, has_no_tenants: bool) -> Filter:
    if reach == ANY_ORGANIZATION:
        return TRUE
    if reach == IN_ORGANIZATION and active is None and not has_no_tenants:
        return FALSE  # every resource has no organization, or another one
    is_own = [Compare(Operator.EQUAL, _ORGANIZATION, active)] if active is not None else []
    none_elsewhere = Every(CHAIN, any_of(absent(_ORGANIZATION), *is_own))
    needs_known = reach == IN_ORGANIZATION and not has_no_tenants
    return all_of(none_elsewhere, _belongs(*is_own)) if needs_known else none_elsewhere


def _belongs(is_own: Filter) -> Filter:
    """A filter: a resource of the chain is in the active organization. "None is in another
    organization and one is known" selects the same resources, but no index serves it."""
    return Some(CHAIN, is_own)


def _nowhere(places: _Places, has_no_tenants: bool) -> Filter:
    """A filter of the resources to which a deny rule does not apply."""
    if places.reaches:
        return FALSE
    parts: list[Filter] = [every(CHAIN, _is_none_of(refs)) for refs in places.resources.values()]
    if places.organizations:
        # A grant in an organization also denies while the resource's organization is unknown.
        if not has_no_tenants:
            parts.append(_IS_KNOWN)
        others = OneOf(_ORGANIZATION, tuple(sorted(places.organizations)), negated=True)
        parts.append(Every(CHAIN, any_of(absent(_ORGANIZATION), others)))
    return all_of(*parts)


def _is_one_of(refs: Iterable[_Ref]) -> Filter:
    return any_of(
        *(
            all_of(Compare(Operator.EQUAL, _TYPE, type_), OneOf(_ID, ids))
            for type_, ids in _by_type(refs).items()
        )
    )


def _is_none_of(refs: Iterable[_Ref]) -> Filter:
    return all_of(
        *(
            any_of(Compare(Operator.NOT_EQUAL, _TYPE, type_), OneOf(_ID, ids, negated=True))
            for type_, ids in _by_type(refs).items()
        )
    )


def _by_type(refs: Iterable[_Ref]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for type_, id_ in sorted(refs):
        found.setdefault(type_, []).append(id_)
    return {type_: tuple(ids) for type_, ids in found.items()}


class _Conditions:
    """The forms of conditions, with the facts about the conditions used."""

    def __init__(self, values: Values, *, has_no_tenants: bool, is_affordable: bool) -> None:
        self._values = values
        self._has_no_tenants = has_no_tenants
        self._is_affordable = is_affordable
        self._rules: dict[str, str] = {}
        """By condition: the first rule that has it."""
        self.reads_now = False

    def forms(self, condition: Condition | None, rule_id: str) -> Forms:
        if condition is None:
            return Forms(TRUE, FALSE)
        forms = forms_of(
            condition,
            self._values,
            has_no_tenants=self._has_no_tenants,
            is_affordable=self._is_affordable,
        )
        self.reads_now = self.reads_now or condition.reads_now
        self._rules[condition.source] = min(rule_id, self._rules.get(condition.source, rule_id))
        return forms

    def unsupported(self, node: Unexpressed) -> Unsupported:
        source = node.condition
        line = source.count("\n", 0, node.offset) + 1
        column = node.offset - source.rfind("\n", 0, node.offset)
        return Unsupported(self._rules[source], node.operator, line, column)


def _without_unexpressed(node: Filter) -> Filter:
    """Replaces `Unexpressed` nodes by TRUE: nothing is negated, so the filter selects more, not
    less."""
    if isinstance(node, Unexpressed):
        return TRUE
    parts = [_without_unexpressed(part) for part in parts_of(node)]
    match node:
        case And():
            return all_of(*parts)
        case Or():
            return any_of(*parts)
        case Some(over, _):
            return some(over, *parts)
        case Every(over, _):
            return every(over, *parts)
    return node
