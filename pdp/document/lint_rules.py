"""The rules of `pdp lint`. `docs/policy-tools.md` has a paragraph for each.

A check yields the kind and key of an entity, and the problem. A section that a document leaves out
is None; rules that depend on it are not checked.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

from pdp_routes import Needs

from pdp.decision import CONSOLE, Reads, build_policy, may_reach_console, reads_of
from pdp.decision.conditions import condition_of
from pdp.document.policy_document import PolicyDocument
from pdp.document.references import Declared
from pdp.model import (
    EVERYWHERE,
    Effect,
    Grant,
    Key,
    OnResource,
    Role,
    Route,
    Rule,
    Tenancy,
    ToUser,
    key_of,
)

Found = Iterator[tuple[str, Key, str]]


class LintRule(NamedTuple):
    """A rule of `pdp lint`."""

    id: str
    level: Literal["warning", "note"]
    """A warning is likely a mistake; a note may be intended."""
    title: str
    check: Callable[[PolicyDocument], Found]


# --- permissions and types ------------------------------------------------------------------------


def _types_without_permission(document: PolicyDocument) -> Found:
    if document.permissions is None:
        return
    types = Declared.of(document.permissions).types
    for type_ in document.resource_types or ():
        if type_.name not in types:
            yield "resource_type", key_of(type_), f"no permission is declared for {type_.name!r}"


def _permissions_in_no_rule(document: PolicyDocument) -> Found:
    if document.rules is None:
        return
    patterns = {rule.permission for rule in document.rules if rule.effect is Effect.ALLOW}
    for permission in document.permissions or ():
        if patterns.isdisjoint(patterns_of(permission.name)):
            yield (
                "permission",
                key_of(permission),
                "no rule allows it, so it is denied to everybody",
            )


def _permissions_in_no_route(document: PolicyDocument) -> Found:
    if not document.routes:
        return
    needed = {route.needs.permission for route in document.routes if isinstance(route.needs, Needs)}
    for permission in document.permissions or ():
        if permission.name not in needed:
            yield "permission", key_of(permission), "no route needs it"


def patterns_of(permission: str) -> tuple[str, str, str]:
    """The patterns of rules that match a permission."""
    return permission, f"{permission.partition(':')[0]}:*", "*"


# --- roles and rules ------------------------------------------------------------------------------


def _unheld_roles(document: PolicyDocument) -> Found:
    if document.grants is None or document.roles is None:
        return
    inherits = {role.name: role.inherits for role in document.roles}
    held: set[str] = set()
    pending = [grant.role for grant in document.grants]
    while pending:
        name = pending.pop()
        if name not in held:
            held.add(name)
            pending += inherits.get(name, ())
    for role in document.roles:
        if role.name not in held:
            text = "no grant gives it, neither by itself nor through a role that inherits it"
            yield "role", key_of(role), text


def _rules_by_role(document: PolicyDocument) -> dict[str, list[Rule]]:
    """The rules of each role, including inherited rules."""
    policy = build_policy(1, (), document.roles or (), (), ())
    own: defaultdict[str, list[Rule]] = defaultdict(list)
    for rule in document.rules or ():
        own[rule.role].append(rule)
    return {
        role.name: [rule for name in policy.closure(role.name) for rule in own[name]]
        for role in document.roles or ()
    }


def covers(wide: str, narrow: str) -> bool:
    """Whether the pattern `wide` matches every permission that `narrow` matches."""
    if wide in ("*", narrow):
        return True
    return wide.endswith(":*") and narrow.partition(":")[0] == wide.removesuffix(":*")


def _shadowed_rules(document: PolicyDocument) -> Found:
    """Compares each rule with the rules of its own role, where it was written."""
    by_role = _rules_by_role(document)
    for rule in document.rules or ():
        for other in by_role.get(rule.role, ()):
            if other is rule or other.condition or not covers(other.permission, rule.permission):
                continue
            if other.effect is Effect.DENY and rule.effect is Effect.ALLOW:
                yield "rule", key_of(rule), f"never allows: {other.id!r} denies the same always"
                break
            same = other.permission == rule.permission and not rule.condition
            if other.effect is rule.effect and not same:
                yield "rule", key_of(rule), f"changes nothing: {other.id!r} does the same always"
                break


def _equal_rules(document: PolicyDocument) -> Found:
    by_role = _rules_by_role(document)
    for rule in document.rules or ():
        for other in by_role.get(rule.role, ()):
            content = (other.effect, other.permission, other.condition)
            if content != (rule.effect, rule.permission, rule.condition):
                continue
            # For two rules of a role the later rule is reported, otherwise the rule of the
            # inheriting role.
            if other.role != rule.role or other.id < rule.id:
                yield "rule", key_of(rule), f"is equal to {other.id!r} of {other.role}"
                break


def _wildcards_beside_denies(document: PolicyDocument) -> Found:
    by_role = _rules_by_role(document)
    for rule in document.rules or ():
        if rule.effect is not Effect.ALLOW or not rule.permission.endswith("*"):
            continue
        for other in by_role.get(rule.role, ()):
            narrower = other.permission != rule.permission
            if (
                other.effect is Effect.DENY
                and narrower
                and covers(rule.permission, other.permission)
            ):
                text = (
                    f"allows every permission that {other.id!r} does not deny, also those that are "
                    "declared later"
                )
                yield "rule", key_of(rule), text
                break


# --- conditions -----------------------------------------------------------------------------------

_WHO: Final = re.compile(
    r"(?:^|_)(?:user(?!_agent)|users|actor|subject|role|roles|admin|owner|member|membership|group|groups|"
    r"org|organization|tenant|permission|permissions|scope|scopes)(?:$|_)"
)
_IDENTITY: Final = (
    "actor.id",
    "actor.session",
    "actor.organization",
    "actor.organization_role",
    "actor.impersonator",
)
_SENT: Final = "context"
_OPEN: Final = ("resource.attributes", "actor.attributes", "actor.claims", _SENT)


def _reads(rule: Rule) -> Reads:
    return reads_of(condition_of(rule.condition))


def _identity_from_caller(document: PolicyDocument) -> Found:
    for rule in document.rules or ():
        if _SENT not in rule.condition:
            continue
        reads = _reads(rule)
        sent = {path.key for path in reads.paths if path.variable == _SENT and path.key}
        suspects = sorted(key for key in sent if _WHO.search(_snake(key)))
        for pair in reads.compared:
            variables = {path.variable for path in pair}
            if _SENT in variables and not variables.isdisjoint(_IDENTITY):
                suspects += [path.key for path in pair if path.variable == _SENT and path.key]
        if suspects:
            text = (
                f"reads context.{suspects[0]}, which the caller sends: it does not prove who the "
                "actor is; read actor or resource instead"
            )
            yield "rule", key_of(rule), text


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()


def _denies_that_fail(document: PolicyDocument) -> Found:
    for rule in document.rules or ():
        if rule.effect is not Effect.DENY or not rule.condition:
            continue
        reads = _reads(rule)
        absent = sorted(
            f"{path.variable}.{path.key}"
            for path in reads.paths - reads.tested
            if path.key is not None and path.variable in _OPEN
        )
        if absent:
            text = (
                f"denies whatever has no {absent[0]}: a condition that cannot be evaluated makes a "
                f"deny rule apply; write has({absent[0]}) && ..., if that is not meant"
            )
            yield "rule", key_of(rule), text


# --- grants ---------------------------------------------------------------------------------------


def _grants_across_tenants(document: PolicyDocument) -> Found:
    if document.permissions is None or document.rules is None:
        return
    types = document.resource_types or ()
    without = {type_.name for type_ in types if type_.tenancy is Tenancy.NONE}
    tenants = Declared.of(document.permissions).types - without
    by_role = _rules_by_role(document)
    for grant in document.grants or ():
        if not isinstance(grant.subject, ToUser) or grant.scope is not EVERYWHERE:
            continue
        reached = sorted(
            kind
            for kind in tenants
            if any(
                rule.effect is Effect.ALLOW and rule.permission.partition(":")[0] in (kind, "*")
                for rule in by_role.get(grant.role, ())
            )
        )
        if reached:
            text = f"allows on every organization's resources of type {', '.join(reached)}"
            yield "grant", key_of(grant), text


def _grants_without_console(document: PolicyDocument) -> Found:
    by_role = _rules_by_role(document)
    for grant in document.grants or ():
        without = {
            rule.permission
            for rule in by_role.get(grant.role, ())
            if rule.effect is Effect.ALLOW
            and rule.permission.startswith(CONSOLE)
            and not may_reach_console(grant, rule.permission)
        }
        if without:
            text = (
                f"does not give {', '.join(sorted(without))}: only a grant to a user everywhere "
                "reaches the console, and for console:view also one in an organization"
            )
            yield "grant", key_of(grant), text


def _grants_that_never_end(document: PolicyDocument) -> Found:
    for grant in document.grants or ():
        if isinstance(grant.subject, ToUser) and grant.expires_at is None:
            yield "grant", key_of(grant), "has no expires_at: it holds until somebody deletes it"


# --- routes ---------------------------------------------------------------------------------------


def _routes_without_resource(document: PolicyDocument) -> Found:
    needing: dict[str, list[Route]] = {}
    for route in document.routes or ():
        if isinstance(route.needs, Needs) and route.needs.resource is None:
            needing.setdefault(route.needs.permission, []).append(route)
    if not needing:
        return
    by_pattern: dict[str, list[Rule]] = {}
    for rule in document.rules or ():
        by_pattern.setdefault(rule.permission, []).append(rule)
    single = _grants_on_resources(document.roles or (), document.grants or ())
    for permission, routes in needing.items():
        patterns = patterns_of(permission)
        rules = [rule for pattern in patterns for rule in by_pattern.get(pattern, ())]
        for description in (_reading(rules), _on_resource(rules, single)):
            for route in routes if description else ():
                text = f"needs {permission!r} without naming a resource, so {description}"
                yield "route", key_of(route), text


def _grants_on_resources(roles: tuple[Role, ...], grants: tuple[Grant, ...]) -> dict[str, Grant]:
    """By role, including inherited roles: a grant on a single resource that gives the role."""
    inherits = {role.name: role.inherits for role in roles}
    found: dict[str, Grant] = {}
    for grant in grants:
        if isinstance(grant.scope, OnResource):
            pending = [grant.role]
            while pending:
                role = pending.pop()
                if role not in found:
                    found[role] = grant
                    pending += inherits.get(role, ())
    return found


def _reading(rules: list[Rule]) -> str | None:
    for rule in rules:
        if "resource" in rule.condition and _reads_resource(rule):
            return f"the condition of the rule {rule.id!r} has no resource to read"
    return None


def _reads_resource(rule: Rule) -> bool:
    reads = _reads(rule)
    return any(path.variable.startswith("resource.") for path in reads.paths | reads.tested)


def _on_resource(rules: list[Rule], single: dict[str, Grant]) -> str | None:
    for rule in rules:
        grant = single.get(rule.role)
        if grant is not None and isinstance(grant.scope, OnResource):
            ref = grant.scope.resource
            verb = "allow" if rule.effect is Effect.ALLOW else "deny"
            return f"the grant {grant.id!r} on {ref.type}/{ref.id} does not {verb} it"
    return None


RULES: Final = (
    LintRule(
        "type-without-permission",
        "warning",
        "A resource type that no permission is about",
        _types_without_permission,
    ),
    LintRule(
        "route-without-resource",
        "warning",
        "A route whose rules need a resource that it does not name",
        _routes_without_resource,
    ),
    LintRule(
        "permission-in-no-rule",
        "warning",
        "A permission that no rule allows",
        _permissions_in_no_rule,
    ),
    LintRule(
        "permission-in-no-route",
        "note",
        "A permission that no route needs",
        _permissions_in_no_route,
    ),
    LintRule("role-unheld", "warning", "A role that nobody can hold", _unheld_roles),
    LintRule("rule-shadowed", "warning", "A rule that never decides", _shadowed_rules),
    LintRule("rule-equal", "warning", "A rule that is equal to another", _equal_rules),
    LintRule(
        "wildcard-beside-deny",
        "note",
        "A wildcard that allows what a deny rule does not name",
        _wildcards_beside_denies,
    ),
    LintRule(
        "identity-from-caller",
        "warning",
        "A condition that takes from the caller who somebody is",
        _identity_from_caller,
    ),
    LintRule(
        "deny-may-fail",
        "warning",
        "A deny rule that reads an attribute that may be absent",
        _denies_that_fail,
    ),
    LintRule(
        "grant-crosses-tenants",
        "note",
        "A grant that reaches the resources of every organization",
        _grants_across_tenants,
    ),
    LintRule(
        "grant-without-console",
        "warning",
        "A grant of a permission of the console that has no effect",
        _grants_without_console,
    ),
    LintRule(
        "grant-never-ends", "note", "A grant to a user without an end", _grants_that_never_end
    ),
)
ON_APPLY: Final = RULES[:2]
"""The rules that do not read the stored grants to users, which may be millions."""
