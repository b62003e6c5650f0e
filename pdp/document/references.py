"""Checks the references between the entities of a document.

A section that is None is not checked, nor are references to it. Facts (users, organizations,
memberships) arrive in any order, so an entity may refer to a fact that is not stored yet.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pdp_routes import Needs, RouteMapInvalid, Routes

from pdp.document.policy_document import PolicyDocument
from pdp.document.validate import display_key
from pdp.errors import Violation
from pdp.limits import RESOURCE_DEPTH_MAX, ROLE_DEPTH_MAX, VIOLATIONS_MAX
from pdp.model import Key, Permission, Resource, key_of


def reference_violations(document: PolicyDocument) -> list[Violation]:
    """Every reference that is broken, part of a cycle, too deep, or across organizations."""
    return [
        Violation(path, description, line, column)
        for kind, key, field, description in _problems(document)
        for path, line, column in [place_of(document, kind, key, field)]
    ]


def place_of(
    document: PolicyDocument, kind: str, key: Key, field: str
) -> tuple[str, int | None, int | None]:
    """The place of an entity in the text; an entity that is only stored is named by its key."""
    place = document.places.get((kind, key))
    if place is None:
        return f"stored {kind} {display_key(key)}", None, None
    return f"{place.path}.{field}" if field else place.path, place.line, place.column


_Problem = tuple[str, Key, str, str]


def _problems(document: PolicyDocument) -> Iterator[_Problem]:
    if document.roles is not None:
        inherits = {role.name: role.inherits for role in document.roles}
        for name, problem in role_problems(inherits).items():
            yield "role", (name,), "inherits", problem
        for rule in document.rules or ():
            if rule.role not in inherits:
                yield "rule", (rule.id,), "role", f"there is no role {rule.role!r}"
        for grant in document.grants or ():
            if grant.role not in inherits:
                yield "grant", (grant.id,), "role", f"there is no role {grant.role!r}"
    if document.permissions is not None:
        declared = Declared.of(document.permissions)
        for rule in document.rules or ():
            if text := declared.problem(rule.permission):
                yield "rule", (rule.id,), "permission", text
    yield from _route_problems(document)
    if document.resources is not None:
        resources = {key_of(resource): resource for resource in document.resources}
        for resource in document.resources:
            if text := parent_problem(resource, resources.get):
                yield "resource", key_of(resource), "parent", text


@dataclass(frozen=True, slots=True)
class Declared:
    """The declared permissions and their resource types."""

    names: frozenset[str]
    types: frozenset[str]

    @classmethod
    def of(cls, permissions: Iterable[Permission]) -> "Declared":
        """Collects the names and resource types of the permissions."""
        names = frozenset(permission.name for permission in permissions)
        return cls(names, frozenset(name.partition(":")[0] for name in names))

    def problem(self, pattern: str) -> str | None:
        """The problem with a rule's permission, which must match a declared one."""
        if pattern == "*" or pattern in self.names:
            return None
        resource_type, _, action = pattern.partition(":")
        if action != "*":
            return f"the permission {pattern!r} is not declared"
        if resource_type not in self.types:
            return f"no declared permission matches {pattern!r}"
        return None


def _route_problems(document: PolicyDocument) -> Iterator[_Problem]:
    routes = document.routes or ()
    if document.permissions is not None:
        declared = Declared.of(document.permissions)
        for route in routes:
            needs = route.needs
            if isinstance(needs, Needs) and (text := declared.problem(needs.permission)):
                yield "route", (route.route,), "", text
    try:
        Routes({route.route: route.needs for route in routes})
    except RouteMapInvalid as error:
        for problem in error.problems:
            *others, last = problem.routes
            with_others = "".join(f"and {other!r} " for other in others)
            yield "route", (last,), "", f"{with_others}{problem.text}"


def role_problems(inherits: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The problems of role inheritance, by role: an unknown role, a cycle, or a chain longer than
    ROLE_DEPTH_MAX.

    Each role is visited once, without recursion. The search ends with VIOLATIONS_MAX problems.
    """
    problems: dict[str, str] = {}
    depth: dict[str, int] = {}
    """For each finished role: the length of its longest chain."""
    for root in sorted(inherits):
        path: dict[str, None] = {}
        stack = [(root, False)]
        while stack and len(problems) < VIOLATIONS_MAX:
            name, finished = stack.pop()
            if finished:
                path.popitem()
                below = [depth.get(parent, 0) for parent in inherits[name]]
                depth[name] = 1 + max(below, default=0)
                if depth[name] == ROLE_DEPTH_MAX + 1:
                    text = f"inherits through more than {ROLE_DEPTH_MAX} roles"
                    problems.setdefault(name, text)
                continue
            if name in depth:
                continue
            path[name] = None
            depth[name] = 0
            stack.append((name, True))
            for parent in inherits[name]:
                if parent not in inherits:
                    problems.setdefault(name, f"there is no role {parent!r}")
                elif parent in path:
                    problems.setdefault(name, f"inherits in a circle: {_circle(path, parent)}")
                else:
                    stack.append((parent, False))
    return problems


def _circle(path: Iterable[str], first: str) -> str:
    names = list(path)
    names = names[names.index(first) :]
    if len(names) > ROLE_DEPTH_MAX:
        names = [*names[: ROLE_DEPTH_MAX // 2], "...", *names[-ROLE_DEPTH_MAX // 2 :]]
    return " -> ".join([*names, first])


def parent_problem(
    resource: Resource, find: Callable[[Key], Resource | None], below: int = 0
) -> str | None:
    """The problem with a resource's ancestors. `find` finds a resource by its key; `below` is the
    number of levels below the resource."""
    above = resource.parent
    if above is None:
        return None
    parent = find((above.type, above.id))
    if parent is None:
        return f"there is no resource {above.type}/{above.id}"
    if parent.organization_id != resource.organization_id:
        return (
            f"belongs to {parent.organization_id or 'no organization'}, "
            f"the resource to {resource.organization_id or 'no organization'}"
        )
    chain: list[Key] = [key_of(resource)]
    while above is not None and len(chain) <= RESOURCE_DEPTH_MAX:
        key: Key = (above.type, above.id)
        if key == chain[0]:
            return f"is below itself: {' -> '.join(map(display_key, [*chain, key]))}"
        chain.append(key)
        parent = find(key)
        above = parent.parent if parent is not None else None
    if len(chain) + below > RESOURCE_DEPTH_MAX:
        return f"is more than {RESOURCE_DEPTH_MAX} levels deep"
    return None
