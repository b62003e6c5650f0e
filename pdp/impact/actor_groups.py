"""Groups actors so that one decision serves for many.

Actors of one class have equal grants, except for those in other organizations and on resources. An
actor's place ties them to single resources. All actors of a class whose places have no mark of a
resource get the same answer for it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pdp.decision import Principal
from pdp.decision.evaluate import reach_of
from pdp.decision.principal import holds
from pdp.document import World
from pdp.impact.resource_groups import Mark
from pdp.model import InOrganization, Reason, ResourceRef

Worlds = tuple[World, World]
"""Before and after."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where an actor acts, and organizations and resources on which they have grants."""

    organization_id: str | None
    marks: frozenset[Mark]


ActorPlace = tuple[int, Place]
"""Index of a user, and where they act."""


@dataclass(slots=True, eq=False)
class ActorClass:
    """Actors that differ in their ids, places and, until the class is split, in attributes."""

    changed: bool
    """Whether what is stored of the actors differs between the worlds."""
    roles: frozenset[str]
    others: frozenset[str] = frozenset()
    """Ids of other users in the attributes that are read."""
    actors: list[ActorPlace] = field(default_factory=list)
    _by_mark: dict[Mark, dict[Place, list[ActorPlace]]] | None = None
    _by_user: dict[int, list[ActorPlace]] | None = None

    def by_mark(self) -> dict[Mark, dict[Place, list[ActorPlace]]]:
        """The actors by each mark of their place, then by place."""
        if self._by_mark is None:
            found: dict[Mark, dict[Place, list[ActorPlace]]] = {}
            for actor in self.actors:
                for mark in actor[1].marks:
                    found.setdefault(mark, {}).setdefault(actor[1], []).append(actor)
            self._by_mark = found
        return self._by_mark

    def by_user(self) -> dict[int, list[ActorPlace]]:
        """The actors by the index of the user."""
        if self._by_user is None:
            found: dict[int, list[ActorPlace]] = {}
            for actor in self.actors:
                found.setdefault(actor[0], []).append(actor)
            self._by_user = found
        return self._by_user


def group_actors(
    worlds: Worlds,
    users: Sequence[str],
    principal_of: Callable[[World, str, str | None], Principal],
) -> list[ActorClass]:
    """Groups the actors of both worlds: each user in each of their organizations, and in none."""
    classes: dict[object, ActorClass] = {}
    places: dict[object, Place] = {}
    for index, user in enumerate(users):
        for active in _organizations_of(worlds, user):
            facts = [_stored(principal_of(world, user, active)) for world in worlds]
            near = (active, *(grants.near for grants in facts))
            place = places.get(near)
            if place is None:
                place = places[near] = _new_place(active, facts)
            key = (active is None, facts[0] == facts[1], *(grants[:-1] for grants in facts))
            found = classes.get(key)
            if found is None:
                found = classes[key] = ActorClass(facts[0] != facts[1], _roles_of(facts))
            elif not found.roles.issuperset(_roles_of(facts)):
                found.roles |= _roles_of(facts)
            found.actors.append((index, place))
    return list(classes.values())


def _organizations_of(worlds: Worlds, user: str) -> Iterable[str | None]:
    found: dict[str | None, None] = {None: None}
    for world in worlds:
        facts = world.users.get(user)
        if facts is not None:
            found.update(dict.fromkeys(facts.memberships))
    return found


class _Stored(NamedTuple):
    """What decisions depend on, without the actor's id, attributes and active organization."""

    refusal: Reason | None
    organization_role: str
    wide: frozenset[tuple[str, int]]
    """Roles and how far they reach."""
    elsewhere: frozenset[str]
    """Roles in other organizations."""
    near: tuple[frozenset[tuple[str, str]], frozenset[tuple[str, ResourceRef]]]
    """Roles in which other organizations, and on which resources."""


def _stored(principal: Principal) -> _Stored:
    elsewhere = frozenset(
        (grant.role, grant.scope.organization_id)
        for grant in principal.elsewhere
        if isinstance(grant.scope, InOrganization)
    )
    on_resources = frozenset(
        (grant.role, ref)
        for ref, grants in principal.on_resources.items()
        for grant in grants
        if holds(grant, principal.now)
    )
    return _Stored(
        principal.refusal,
        principal.organization_role,
        frozenset((grant.role, reach_of(grant)) for grant in principal.wide),
        frozenset(role for role, _ in elsewhere),
        (elsewhere, on_resources),
    )


def _roles_of(facts: Sequence[_Stored]) -> frozenset[str]:
    return frozenset(
        role for grants in facts for role, _ in (*grants.wide, *grants.near[0], *grants.near[1])
    )


def _new_place(active: str | None, facts: Sequence[_Stored]) -> Place:
    marks: set[Mark] = set() if active is None else {active}
    for grants in facts:
        marks.update(organization for _, organization in grants.near[0])
        marks.update(ref for _, ref in grants.near[1])
    return Place(active, frozenset(marks))
