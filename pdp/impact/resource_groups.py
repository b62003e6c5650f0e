"""Groups resources of one type so that one decision serves for many.

Resources have the same *shape* if they differ only in their *marks* (organizations, resources with
grants to single users) and in ids of users in the attributes that conditions read. For an actor
without a resource's marks and ids, all resources of a shape have the same answer. A *group* is the
resources of one shape with the same marks and ids: they have the same answer for everybody.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pdp.decision.principal import holds
from pdp.document import World
from pdp.impact.condition_use import ConditionUse
from pdp.model import Resource, ResourceFacts, ResourceRef, ToOrganizationRole

Mark = str | ResourceRef
"""The id of an organization, or a resource with grants to users."""
Places = tuple[tuple[tuple[tuple[str | None, ResourceRef | None], ...], tuple[str, ...]], ...]
"""For each world: organization of each resource of the chain, and the resource itself if it has a
grant to a user; ids of users in the order of their occurrence."""


@dataclass(slots=True)
class Group:
    """Resources with the same answers. `refs` is [None] for the question without a resource."""

    marks: frozenset[Mark]
    users: frozenset[str]
    """Ids in the attributes."""
    refs: list[ResourceRef | None] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Shape:
    """Groups that differ in their marks only."""

    changed: bool
    """Whether the facts of the resources differ between the two worlds."""
    roles: frozenset[str]
    """Roles that grants on the resources or above give to organization roles."""
    groups: dict[Places, Group] = field(default_factory=dict)
    marked: dict[Mark, list[Group]] = field(default_factory=lambda: defaultdict(list))
    """By mark, other than ids of users."""
    owned: dict[str, list[Group]] = field(default_factory=lambda: defaultdict(list))
    """By the id of a user in the attributes."""
    size: int = 0


def shapes_of(
    worlds: tuple[World, World],
    refs: Iterable[ResourceRef],
    use: ConditionUse,
    users: frozenset[str],
    *,
    granted: frozenset[ResourceRef],
    now: float,
) -> list[Shape]:
    """Groups the resources, and adds the question without a resource.

    Args:
        worlds: Before and after.
        refs: The resources.
        use: What the conditions of the permission read.
        users: Ids that may be renamed; empty: none may.
        granted: Resources on which single users have grants.
        now: Seconds since 1970-01-01 UTC.
    """
    nothing = Shape(changed=False, roles=frozenset(), size=1)
    nothing.groups[()] = Group(frozenset(), frozenset(), [None])
    shapes: dict[Any, Shape] = {}
    for ref in refs:
        chains = [world.chain(Resource(ref.type, ref.id)) for world in worlds]
        seen = [_values(chain[0], use, users) for chain in chains]
        facts = [
            (tuple(_part(resource, now) for resource in chain), values)
            for chain, (values, _) in zip(chains, seen, strict=True)
        ]
        # Where the marks are. Ids are numbered in their order, so equal places mean equal facts.
        places = tuple(
            (tuple(_place(resource, granted) for resource in chain), tuple(ids))
            for chain, (_, ids) in zip(chains, seen, strict=True)
        )
        changed = facts[0] != facts[1] or places[0] != places[1]
        fixed = str(places) if "resource.organization" in use.reads else ""
        key = (*facts, changed, fixed)
        shape = shapes.get(key)
        if shape is None:
            roles = {
                grant.role
                for chain in chains
                for resource in chain
                for grant in resource.role_grants
            }
            shape = shapes[key] = Shape(changed, frozenset(roles))
        group = shape.groups.get(places)
        if group is None:
            group = shape.groups[places] = _group(places)
            for mark in group.marks:
                shape.marked[mark].append(group)
            for user in group.users:
                shape.owned[user].append(group)
        group.refs.append(ref)
        shape.size += 1
    return [nothing, *shapes.values()]


def _place(
    facts: ResourceFacts, granted: frozenset[ResourceRef]
) -> tuple[str | None, ResourceRef | None]:
    ref = ResourceRef(facts.resource.type, facts.resource.id)
    return facts.resource.organization_id, ref if ref in granted else None


def _group(places: Places) -> Group:
    marks: set[Mark] = set()
    users: set[str] = set()
    for chain, ids in places:
        for organization, ref in chain:
            if organization is not None:
                marks.add(organization)
            if ref is not None:
                marks.add(ref)
        users.update(ids)
    return Group(frozenset(marks), frozenset(users))


def _part(facts: ResourceFacts, now: float) -> tuple[Any, ...]:
    grants = frozenset(
        (grant.role, grant.subject.organization_role)
        for grant in facts.role_grants
        if isinstance(grant.subject, ToOrganizationRole) and holds(grant, now)
    )
    resource = facts.resource
    return resource.type, facts.stored, resource.organization_id is None, grants


def _values(
    facts: ResourceFacts, use: ConditionUse, users: frozenset[str]
) -> tuple[str, dict[str, int]]:
    """The attributes that are read as text, with ids of users replaced by numbers in the order of
    their occurrence; and these ids."""
    ids: dict[str, int] = {}
    values: dict[str, Any] = {
        "attributes": use.values("resource.attributes", facts.resource.attributes)
    }
    if "resource.id" in use.reads:
        values["id"] = facts.resource.id
    return json.dumps(renamed(values, users, ids)), ids


def renamed(value: Any, users: frozenset[str], ids: dict[str, int]) -> Any:
    """A JSON value with ids of users replaced by numbers; equal for equal structures only."""
    # The depth of attributes is bounded where they are accepted, so recursion is.
    if isinstance(value, str):
        if value in users:
            return {"user": ids.setdefault(value, len(ids))}
        return value
    if isinstance(value, list):
        return [renamed(item, users, ids) for item in value]
    if isinstance(value, Mapping):
        items = [
            [renamed(key, users, ids), renamed(value[key], users, ids)] for key in sorted(value)
        ]
        return {"items": items}
    return value
