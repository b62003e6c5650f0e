"""Checks the references between entities: of one write against the stored entities.

Runs inside the transaction that writes. Users, organizations and memberships arrive in any order,
and resources need not be stored. So grants and memberships may name unknown ones; roles,
permissions and parents must exist.
"""

from collections.abc import Iterator, Mapping

from pdp_routes import ROUTES_MAX, Needs, RouteMapInvalid, Routes

from pdp.document import Declared, PolicyDocument, display_key, parent_problem, role_problems
from pdp.errors import BrokenReference, LimitExceeded, RevisionChanged, RouteConflict
from pdp.facts import ChangeKind, Reader
from pdp.facts.store.references import find_inheritor, find_referrers
from pdp.kinds import KINDS, kind_of
from pdp.limits import RESOURCE_DEPTH_MAX
from pdp.model import (
    Entity,
    Grant,
    Key,
    Membership,
    Organization,
    Permission,
    Resource,
    ResourceRef,
    Role,
    Route,
    Rule,
    User,
    key_of,
)

_KINDS_WRITTEN: Mapping[ChangeKind, set[str]] = {
    ChangeKind.PERMISSION: {"permission"},
    ChangeKind.RESOURCE_TYPE: {"resource_type"},
    ChangeKind.ROLE: {"role"},
    ChangeKind.RULE: {"rule"},
    ChangeKind.ROLE_GRANT: {"grant"},
    ChangeKind.ROUTE: {"route"},
    ChangeKind.USER: {"user", "membership", "grant"},
    ChangeKind.ORGANIZATION: {"organization", "grant"},
    ChangeKind.RESOURCE: {"resource", "grant"},
    ChangeKind.ORGANIZATION_ROLE: set(),
    ChangeKind.EVERYTHING: set(KINDS),
}
"""The kinds of entities that a write with this change may have written."""

# --- concurrent writes ----------------------------------------------------------------------------


def check_expected(reader: Reader, wanted: PolicyDocument, expected: int) -> None:
    """Checks that no entity in the sections of a document was written after a revision.

    Args:
        reader: The transaction.
        wanted: The document.
        expected: The revision; 0: no check.

    Raises:
        RevisionChanged: One may have been written.
    """
    if not expected or reader.revision == expected:
        return
    found = reader.changes(expected)
    written = {
        kind
        for changes in found.values()
        for change in changes
        for kind in _KINDS_WRITTEN[change.kind]
    }
    named = {kind for kind in KINDS if wanted.section(kind) is not None}
    # Missing revisions were pruned. A revision from the future belongs to another epoch.
    if len(found) != reader.revision - expected or written & named:
        raise RevisionChanged(expected, reader.revision)


# --- references of a write ------------------------------------------------------------------------


def check_references(reader: Reader, entity: Entity) -> None:
    """Checks what an entity refers to.

    Raises:
        BrokenReference: The target does not exist, or references form a cycle or are too deep.
        RouteConflict: The entity is a route that conflicts with another one.
        LimitExceeded: There are ROUTES_MAX routes.
    """
    problem: str | None = None
    match entity:
        case Role() if entity.inherits:
            problem = _inheritance_problem(reader, entity)
        case Rule():
            problem = _role_problem(reader, entity.role)
            problem = problem or _declared(reader, entity.permission).problem(entity.permission)
        case Grant():
            problem = _role_problem(reader, entity.role)
        case Route():
            if isinstance(entity.needs, Needs):
                permission = entity.needs.permission
                problem = _declared(reader, permission).problem(permission)
            _check_route(reader, entity)
        case Resource():
            problem = _position_problem(reader, entity)
    if problem is not None:
        raise _broken(type(entity), key_of(entity), problem)


def _inheritance_problem(reader: Reader, role: Role) -> str | None:
    inherits = {stored.name: stored.inherits for stored in reader.list(Role)}
    inherits[role.name] = role.inherits
    problems = role_problems(inherits)
    if role.name in problems:
        return problems[role.name]
    return next((f"makes {name} invalid: {text}" for name, text in problems.items()), None)


def _role_problem(reader: Reader, name: str) -> str | None:
    return None if reader.get(Role, (name,)) else f"there is no role {name!r}"


def _declared(reader: Reader, pattern: str) -> Declared:
    """Returns the declared permissions that can match the pattern."""
    if not pattern.endswith(":*"):
        found = reader.get(Permission, (pattern,))
        return Declared.of([found] if found else [])
    # keys are in bytewise order: those that start with `type:` come right after it
    return Declared.of(reader.list(Permission, (pattern.removesuffix("*"),), 1))


def _check_route(reader: Reader, route: Route) -> None:
    routes = {stored.route: stored.needs for stored in (*reader.list(Route), route)}
    if len(routes) > ROUTES_MAX:
        raise LimitExceeded("routes_max", ROUTES_MAX, len(routes))
    try:
        Routes(routes)
    except RouteMapInvalid as error:
        for problem in error.problems:
            # A conflict between other routes is no reason to refuse this one.
            if route.route in problem.routes:
                other = next(name for name in problem.routes if name != route.route)
                raise RouteConflict(route.route, other, problem.text) from None


def _position_problem(reader: Reader, resource: Resource) -> str | None:
    ref = ResourceRef(resource.type, resource.id)
    before = reader.get(Resource, key_of(resource))
    below = 0
    if before is not None:
        if before.organization_id != resource.organization_id and _children(reader, ref, 1):
            return "has resources below it: those belong to the same organization"
        if before.parent != resource.parent:
            below = _levels_below(reader, ref)
    return parent_problem(resource, lambda key: reader.get(Resource, key), below)


def _levels_below(reader: Reader, ref: ResourceRef) -> int:
    levels = 0
    level = [ref]
    while levels < RESOURCE_DEPTH_MAX:
        level = [
            ResourceRef(child.type, child.id)
            for parent in level
            for child in _children(reader, parent)
        ]
        if not level:
            break
        levels += 1
    return levels


def _children(reader: Reader, ref: ResourceRef, limit: int | None = None) -> list[Resource]:
    return list(find_referrers(reader, Resource, limit, parent_type=ref.type, parent_id=ref.id))


# --- references to a deletion ---------------------------------------------------------------------


def dependents(reader: Reader, kind: type[Entity], key: Key) -> Iterator[Entity]:
    """Yields the entities to delete before an entity.

    Raises:
        BrokenReference: Another entity refers to it, so that it must stay.
    """
    if kind is Permission:
        _check_permission_unused(reader, key[0])
    elif kind is Role:
        if inheritor := find_inheritor(reader, key[0]):
            raise _broken(kind, key, f"the role {inheritor!r} inherits from it")
        for grant in find_referrers(reader, Grant, 1, role=key[0]):
            raise _broken(kind, key, f"the grant {grant.id!r} gives it")
        yield from find_referrers(reader, Rule, role=key[0])
    elif kind is User:
        yield from find_referrers(reader, Membership, user_id=key[0])
        yield from find_referrers(reader, Grant, user_id=key[0])
    elif kind is Organization:
        for resource in find_referrers(reader, Resource, 1, organization_id=key[0]):
            name = display_key(key_of(resource))
            raise _broken(kind, key, f"the resource {name!r} belongs to it")
        yield from find_referrers(reader, Membership, organization_id=key[0])
        yield from find_referrers(reader, Grant, organization_id=key[0])
    elif kind is Resource:
        for child in _children(reader, ResourceRef(*key), 1):
            raise _broken(kind, key, f"the resource {display_key(key_of(child))!r} is below it")
        yield from find_referrers(reader, Grant, resource_type=key[0], resource_id=key[1])


def _check_permission_unused(reader: Reader, name: str) -> None:
    pattern = f"{name.partition(':')[0]}:*"
    for rule in find_referrers(reader, Rule, 1, permission=name):
        raise _broken(Permission, (name,), f"the rule {rule.id!r} names it")
    for route in find_referrers(reader, Route, 1, needs=name):
        raise _broken(Permission, (name,), f"the route {route.route!r} needs it")
    others = [
        permission.name for permission in reader.list(Permission, (pattern.removesuffix("*"),), 2)
    ]
    if any(
        Declared.of([Permission(other)]).problem(pattern) is None
        for other in others
        if other != name
    ):
        return
    for rule in find_referrers(reader, Rule, 1, permission=pattern):
        text = f"it is the last that {pattern} matches, which the rule {rule.id!r} names"
        raise _broken(Permission, (name,), text)


def _broken(kind: type[Entity], key: Key, problem: str) -> BrokenReference:
    name = display_key(key)
    return BrokenReference(f"{kind_of(kind)} {name!r}: {problem}", kind_of(kind), name)
