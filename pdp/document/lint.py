"""What of a policy holds together and is nevertheless likely to surprise: warnings, not errors."""

from collections.abc import Iterator
from itertools import islice

from pdp_routes import Needs

from pdp.decision import ConditionInvalid, compile_condition
from pdp.document.policy_document import PolicyDocument
from pdp.document.references import Declared, place_of
from pdp.errors import Violation
from pdp.limits import VIOLATIONS_MAX
from pdp.model import Effect, Grant, Key, OnResource, Route, Rule, key_of

_Finding = tuple[str, Key, str]


def lint(document: PolicyDocument) -> list[Violation]:
    """Warnings about a policy whose references are sound, each with its place; at most
    VIOLATIONS_MAX. A section that is None is not judged.

    A resource type that no declared permission is about has no effect. A route without a resource
    asks a question without one: rules that read the resource find none, and grants on single
    resources do not apply.
    """
    return [
        Violation(path, description, line, column)
        for kind, key, description in islice(_findings(document), VIOLATIONS_MAX)
        for path, line, column in [place_of(document, kind, key, "")]
    ]


def _findings(document: PolicyDocument) -> Iterator[_Finding]:
    if document.permissions is not None:
        types = Declared.of(document.permissions).types
        for one in document.resource_types or ():
            if one.name not in types:
                yield "resource_type", key_of(one), f"no permission is declared for {one.name!r}"
    yield from _routes_without_resource(document)


def _routes_without_resource(document: PolicyDocument) -> Iterator[_Finding]:
    needing: dict[str, list[Route]] = {}
    for route in document.routes or ():
        if isinstance(route.needs, Needs) and route.needs.resource is None:
            needing.setdefault(route.needs.permission, []).append(route)
    if not needing:
        return
    by_pattern: dict[str, list[Rule]] = {}
    for rule in document.rules or ():
        by_pattern.setdefault(rule.permission, []).append(rule)
    single = _grants_on_resources(document)
    for permission, routes in needing.items():
        patterns = (permission, f"{permission.partition(':')[0]}:*", "*")
        rules = [rule for pattern in patterns for rule in by_pattern.get(pattern, ())]
        for description in (_reading(rules), _on_resource(rules, single)):
            for route in routes if description else ():
                text = f"needs {permission!r} without naming a resource, so {description}"
                yield "route", key_of(route), text


def _grants_on_resources(document: PolicyDocument) -> dict[str, Grant]:
    """By role, inherited ones too: a grant on a single resource that gives it."""
    inherits = {role.name: role.inherits for role in document.roles or ()}
    found: dict[str, Grant] = {}
    for grant in document.grants or ():
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
        if "resource" in rule.condition and _reads_resource(rule.condition):
            return f"the condition of the rule {rule.id!r} has no resource to read"
    return None


def _reads_resource(source: str) -> bool:
    try:
        return compile_condition(source).reads_resource
    except ConditionInvalid:  # stored by another version
        return False


def _on_resource(rules: list[Rule], single: dict[str, Grant]) -> str | None:
    for rule in rules:
        grant = single.get(rule.role)
        if grant is not None and isinstance(grant.scope, OnResource):
            ref = grant.scope.resource
            verb = "allow" if rule.effect is Effect.ALLOW else "deny"
            return f"the grant {grant.id!r} on {ref.type}/{ref.id} does not {verb} it"
    return None
