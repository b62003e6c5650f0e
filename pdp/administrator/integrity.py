"""What may stand in the database together: checks of one write against what is stored.

Runs inside the transaction that writes. Users, organizations and memberships arrive in any order
and resources need not be stored at all, so a grant or a membership may name one that is not there;
roles, permissions and parents must be.
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

_WRITTEN: Mapping[ChangeKind, set[str]] = {
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
"""The kinds of entities of which some may have been written, where this was touched."""

# --- what was written meanwhile -------------------------------------------------------------------


def check_expected(reader: Reader, wanted: PolicyDocument, expected: int) -> None:
    """Raises RevisionChanged where something of the kinds that the document names may have been
    written after the expected revision; 0: nothing is expected."""
    if not expected or reader.revision == expected:
        return
    found = reader.changes(expected)
    written = {kind for some in found.values() for one in some for kind in _WRITTEN[one.kind]}
    named = {kind for kind in KINDS if wanted.section(kind) is not None}
    # Revisions that are missing were forgotten; and one from the future is another history's.
    if len(found) != reader.revision - expected or written & named:
        raise RevisionChanged(expected, reader.revision)


# --- what a write names ---------------------------------------------------------------------------


def check_references(reader: Reader, entity: Entity) -> None:
    """Raises BrokenReference where the entity would refer to nothing, in a circle, or too deep;
    RouteConflict where it is a route that does not go together with another; LimitExceeded where
    there are ROUTES_MAX."""
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
    inherits = {one.name: one.inherits for one in reader.list(Role)}
    inherits[role.name] = role.inherits
    problems = role_problems(inherits)
    if role.name in problems:
        return problems[role.name]
    return next((f"makes {name} invalid: {text}" for name, text in problems.items()), None)


def _role_problem(reader: Reader, name: str) -> str | None:
    return None if reader.get(Role, (name,)) else f"there is no role {name!r}"


def _declared(reader: Reader, pattern: str) -> Declared:
    """The declared permissions, as far as they can match the pattern."""
    if not pattern.endswith(":*"):
        found = reader.get(Permission, (pattern,))
        return Declared.of([found] if found else [])
    # keys are ordered byte for byte: what starts with `type:` stands right behind it
    return Declared.of(reader.list(Permission, (pattern.removesuffix("*"),), 1))


def _check_route(reader: Reader, route: Route) -> None:
    routes = {one.route: one.needs for one in (*reader.list(Route), route)}
    if len(routes) > ROUTES_MAX:
        raise LimitExceeded("routes_max", ROUTES_MAX, len(routes))
    try:
        Routes(routes)
    except RouteMapInvalid as error:
        for problem in error.problems:
            # What others have between them is not put right by refusing this one.
            if route.route in problem.routes:
                other = next(one for one in problem.routes if one != route.route)
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


# --- what names a deletion ------------------------------------------------------------------------


def dependents(reader: Reader, kind: type[Entity], key: Key) -> Iterator[Entity]:
    """What is deleted before an entity. Raises BrokenReference where the entity must stay."""
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
    others = [one.name for one in reader.list(Permission, (pattern.removesuffix("*"),), 2)]
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
