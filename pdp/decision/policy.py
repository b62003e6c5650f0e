"""The policy at a revision: permissions, resource types, roles, rules, routes, and the grants and
permissions of organization roles.

Immutable: a change makes a new policy that shares the unchanged parts. Rules are indexed by role
and permission, so the cost of a decision does not depend on the number of rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from immutables import Map
from pdp_routes import RouteMapInvalid, Routes

from pdp.decision.conditions import Condition, condition_of
from pdp.model import (
    EVERYWHERE,
    Effect,
    Grant,
    InOrganization,
    Key,
    Permission,
    ResourceFacts,
    ResourceType,
    Role,
    Route,
    Rule,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    key_of,
)

K = TypeVar("K")
V = TypeVar("V")

PolicyEntity = Permission | ResourceType | Role | Rule | Grant | Route
"""The entities of a policy. Its grants are those to organization roles that hold everywhere."""

CONSOLE: Final = "console:"
"""How the permissions of the security team's console begin. A rule that allows `*` does not allow
them, and only a grant to a user that holds everywhere reaches them (ADR 35)."""
CONSOLE_VIEW: Final = "console:view"
TENANT_CONSOLE: Final = "tenant-console"
"""The type of resource that the console of one organization is. CONSOLE_VIEW on it is also reached
by a grant to a user in the active organization (ADR 40)."""


_KINDS: Final = (Permission, ResourceType, Role, Rule, Grant, Route)
_MEMO_RULES_MAX: Final = 1_000_000


class MatchedRule(NamedTuple):
    """The part of a rule that a decision needs."""

    id: str
    condition: Condition | None


class MatchedRules(NamedTuple):
    """The rules of one role (its own and inherited) for one permission, each ordered by id."""

    allow: tuple[MatchedRule, ...]
    deny: tuple[MatchedRule, ...]


@dataclass(slots=True)
class _Memo:
    """Memo of the rules found in a policy. Any thread may fill it: an entry is set as a whole, and
    two threads that compute it get equal values. Dropped as a whole when it is too large."""

    rules: dict[tuple[str, str], MatchedRules] = field(default_factory=dict)
    size: int = 0
    reads_factors: bool | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """A snapshot of the policy. `build_policy` makes it, `with_changes` makes a changed copy."""

    revision: int
    permissions: Map[str, Permission]
    roles: Map[str, Role]
    rules: Map[str, Rule]
    grants: Map[str, Grant]
    """By id: the grants to organization roles that hold everywhere."""
    resource_types: Map[str, ResourceType]
    """By name: the resource types that the policy mentions."""
    organization_permissions: Mapping[str, tuple[str, ...]]
    """The permissions of Clerk's organization roles, for conditions: by the role's key, sorted.
    Lacks the roles that Clerk has not reported."""
    routes: Routes
    """What a request needs. Matches no request if the stored routes contradict each other."""
    routes_problem: str | None
    """Why it matches no request; None: the routes are valid."""
    _routes: Map[str, Route]
    """The routes as they are stored."""
    _rules_by_place: Map[tuple[str, str], tuple[Rule, ...]]
    """Rules by role and permission pattern."""
    _grants_by_role: Map[str, tuple[Grant, ...]]
    """Grants by organization role, ordered by id."""
    _memo: _Memo = field(default_factory=_Memo, compare=False, repr=False)

    def grants_to(self, organization_role: str) -> tuple[Grant, ...]:
        """Grants to an organization role that hold everywhere, ordered by id."""
        return self._grants_by_role.get(organization_role, ())

    def reads_factors(self) -> bool:
        """Whether a condition may read how long ago a factor was verified."""
        memo = self._memo
        if memo.reads_factors is None:
            memo.reads_factors = any(
                "factor_minutes" in rule.condition for _, rule in self.rules.items()
            )
        return memo.reads_factors

    def role_grants(self) -> list[Grant]:
        """All grants to organization roles that hold everywhere."""
        return [grant for _, grant in self.grants.items()]  # has no values()

    def role_names(self) -> list[str]:
        """All roles."""
        return [name for name, _ in self.roles.items()]  # has no keys()

    def permissions_on(self, resource_type: str) -> Sequence[str]:
        """The declared permissions on resources of a type, in bytewise order."""
        prefix = f"{resource_type}:"
        return sorted(name for name, _ in self.permissions.items() if name.startswith(prefix))

    def has_no_tenants(self, resource_type: str) -> bool:
        """Whether resources of a type belong to no organization."""
        known = self.resource_types.get(resource_type)
        return known is not None and known.tenancy is Tenancy.NONE

    def accepts(self, facts: ResourceFacts) -> bool:
        """Whether a question may name a resource: not if its type requires it to be stored and it
        is not."""
        known = self.resource_types.get(facts.resource.type)
        return facts.stored or known is None or not known.stored_required

    def rules_of(self, role: str, permission: str) -> MatchedRules:
        """The rules of a role and of all it inherits, for a permission."""
        key = (role, permission)
        memo = self._memo
        found = memo.rules.get(key)
        if found is None:
            found = self._match(role, permission)
            if memo.size > _MEMO_RULES_MAX:
                memo.rules = {}
                memo.size = 0
            memo.rules[key] = found
            memo.size += 1 + len(found.allow) + len(found.deny)
        return found

    def closure(self, role: str) -> list[str]:
        """A role and all that it inherits, without duplicates, sorted. Ends even if roles form a
        cycle."""
        seen = {role}
        pending = [role]
        while pending:
            known = self.roles.get(pending.pop())
            if known is not None:
                for name in known.inherits:
                    if name not in seen:
                        seen.add(name)
                        pending.append(name)
        return sorted(seen)

    def _match(self, role: str, permission: str) -> MatchedRules:
        patterns = (permission, f"{permission.partition(':')[0]}:*", "*")
        is_of_console = permission.startswith(CONSOLE)
        rules = [
            rule
            for name in self.closure(role)
            for pattern in patterns
            for rule in self._rules_by_place.get((name, pattern), ())
            if not (is_of_console and pattern == "*" and rule.effect is Effect.ALLOW)
        ]
        rules.sort(key=lambda rule: rule.id)
        allow, deny = (
            tuple(
                MatchedRule(rule.id, condition_of(rule.condition) if rule.condition else None)
                for rule in rules
                if rule.effect is effect
            )
            for effect in (Effect.ALLOW, Effect.DENY)
        )
        return MatchedRules(allow, deny)

    def with_rules_of(self, other: "Policy") -> "Policy":
        """This policy with the permissions, roles and rules of another one."""
        return replace(
            self,
            permissions=other.permissions,
            roles=other.roles,
            rules=other.rules,
            _rules_by_place=other._rules_by_place,  # noqa: SLF001
            _memo=other._memo,  # noqa: SLF001
        )

    def with_changes(
        self,
        revision: int,
        changed: Iterable[PolicyEntity] = (),
        removed: Iterable[tuple[type[PolicyEntity], Key]] = (),
        *,
        organization_permissions: Mapping[str, tuple[str, ...]] | None = None,
    ) -> "Policy":
        """This policy at a later revision. The cost depends on the size of the change, not of the
        policy.

        Args:
            revision: the later revision.
            changed: entities in their new state.
            removed: kind and key of removed entities; unknown entities are ignored.
            organization_permissions: the permissions of all organization roles; None: unchanged.

        `changed` and `removed` may contain grants that are not part of a policy.
        """
        touched: dict[type[PolicyEntity], dict[str, Any]] = {kind: {} for kind in _KINDS}
        for kind, key in removed:
            touched[kind][key[0]] = None
        for entity in changed:
            # A grant that the policy no longer holds leaves it.
            stays = not isinstance(entity, Grant) or _is_of_policy(entity)
            touched[type(entity)][key_of(entity)[0]] = entity if stays else None
        roles: dict[str, Role | None] = touched[Role]
        rules: dict[str, Rule | None] = touched[Rule]
        routes: dict[str, Route | None] = touched[Route]
        grants: dict[str, Grant | None] = {
            key: grant for key, grant in touched[Grant].items() if grant or key in self.grants
        }
        stored_routes = _updated(self._routes, routes)
        compiled, routes_problem = (
            _compiled(stored_routes) if routes else (self.routes, self.routes_problem)
        )
        return replace(
            self,
            revision=revision,
            permissions=_updated(self.permissions, touched[Permission]),
            resource_types=_updated(self.resource_types, touched[ResourceType]),
            roles=_updated(self.roles, roles),
            rules=_updated(self.rules, rules),
            grants=_updated(self.grants, grants),
            organization_permissions=(
                self.organization_permissions
                if organization_permissions is None
                else organization_permissions
            ),
            routes=compiled,
            routes_problem=routes_problem,
            _routes=stored_routes,
            _rules_by_place=_replaced_rules(self, rules),
            _grants_by_role=_replaced_grants(self, grants),
            # The memo depends on roles and rules only.
            _memo=_Memo() if roles or rules else self._memo,
        )


def build_policy(
    revision: int,
    permissions: Iterable[Permission],
    roles: Iterable[Role],
    rules: Iterable[Rule],
    role_grants: Iterable[Grant],
    *,
    organization_permissions: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    routes: Iterable[Route] = (),
    resource_types: Iterable[ResourceType] = (),
) -> Policy:
    """Builds a policy from all entities. Conditions are compiled when first needed.

    Of `role_grants` the policy takes those to organization roles that hold everywhere.
    """
    rules = list(rules)
    grants = [grant for grant in role_grants if _is_of_policy(grant)]
    by_place: dict[tuple[str, str], list[Rule]] = {}
    for rule in rules:
        by_place.setdefault((rule.role, rule.permission), []).append(rule)
    by_role: dict[str, list[Grant]] = {}
    for grant in grants:
        by_role.setdefault(_organization_role(grant), []).append(grant)
    stored_routes = Map((route.route, route) for route in routes)
    return Policy(
        revision,
        Map((permission.name, permission) for permission in permissions),
        Map((role.name, role) for role in roles),
        Map((rule.id, rule) for rule in rules),
        Map((grant.id, grant) for grant in grants),
        Map((type_.name, type_) for type_ in resource_types),
        organization_permissions,
        *_compiled(stored_routes),
        stored_routes,
        Map((place, tuple(some)) for place, some in by_place.items()),
        Map(
            (role, tuple(sorted(some, key=lambda grant: grant.id)))
            for role, some in by_role.items()
        ),
    )


def _updated(current: Map[K, V], changes: Mapping[K, V | None]) -> Map[K, V]:
    """The map with these values; None removes a key. The cost depends on the changes alone."""
    draft = current.mutate()
    for key, value in changes.items():
        if value is None:
            draft.pop(key, None)
        else:
            draft[key] = value
    return draft.finish()


def _compiled(stored: Map[str, Route]) -> tuple[Routes, str | None]:
    """The compiled routes. An invalid map matches no request; it does not stop the server."""
    try:
        return Routes({key: route.needs for key, route in stored.items()}), None
    except RouteMapInvalid as error:
        return Routes({}), str(error.problems[0])


def _is_of_policy(grant: Grant) -> bool:
    return isinstance(grant.subject, ToOrganizationRole) and grant.scope is EVERYWHERE


def _organization_role(grant: Grant) -> str:
    assert isinstance(grant.subject, ToOrganizationRole)  # noqa: S101  # for the type checker
    return grant.subject.organization_role


def _replaced_rules(
    policy: Policy, changes: dict[str, Rule | None]
) -> Map[tuple[str, str], tuple[Rule, ...]]:
    places: dict[tuple[str, str], dict[str, Rule]] = {}

    def at(rule: Rule) -> dict[str, Rule]:
        place = (rule.role, rule.permission)
        if place not in places:
            known = policy._rules_by_place.get(place, ())  # noqa: SLF001
            places[place] = {rule.id: rule for rule in known}
        return places[place]

    for key, rule in changes.items():
        old = policy.rules.get(key)
        if old is not None:
            at(old).pop(key, None)
        if rule is not None:
            at(rule)[key] = rule
    return _updated(
        policy._rules_by_place,  # noqa: SLF001
        {place: tuple(rules.values()) or None for place, rules in places.items()},
    )


def _replaced_grants(
    policy: Policy, changes: dict[str, Grant | None]
) -> Map[str, tuple[Grant, ...]]:
    roles: dict[str, dict[str, Grant]] = {}

    def at(grant: Grant) -> dict[str, Grant]:
        role = _organization_role(grant)
        if role not in roles:
            roles[role] = {grant.id: grant for grant in policy.grants_to(role)}
        return roles[role]

    for key, grant in changes.items():
        old = policy.grants.get(key)
        if old is not None:
            at(old).pop(key, None)
        if grant is not None:
            at(grant)[key] = grant
    return _updated(
        policy._grants_by_role,  # noqa: SLF001
        {
            role: tuple(sorted(grants.values(), key=lambda grant: grant.id)) or None
            for role, grants in roles.items()
        },
    )


def reaches_console(grant: Grant, *, of_tenant: bool) -> bool:
    """Whether allow rules for the console count through a grant that holds in the active
    organization or everywhere.

    Args:
        grant: The grant.
        of_tenant: Whether the question is CONSOLE_VIEW on a TENANT_CONSOLE.
    """
    if not isinstance(grant.subject, ToUser):
        return False
    return grant.scope is EVERYWHERE or (of_tenant and isinstance(grant.scope, InOrganization))


def may_reach_console(grant: Grant, pattern: str) -> bool:
    """Whether an allow rule about permissions of the console (`console:view`, `console:*`) can
    count through a grant for some question."""
    views = pattern in (CONSOLE_VIEW, f"{CONSOLE}*")
    return pattern.startswith(CONSOLE) and reaches_console(grant, of_tenant=views)
