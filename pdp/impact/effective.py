"""Which answers differ between two worlds, for all users.

An answer is that to a user, in one of their organizations or in none, for a permission and a stored
resource of its type or none. What only a request carries (claims, context, factors) is empty or
absent. Actors and resources are grouped so that one decision serves for many
(`pdp.impact.resource_groups`); a permission whose rules are the same in both worlds is decided only
where facts differ.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pdp.decision import Policy, Principal, decide, resolve_principal
from pdp.document import World, same_entity
from pdp.impact.actor_groups import ActorClass, ActorPlace, Place, Worlds, group_actors
from pdp.impact.condition_use import NOT_STORED, ConditionUse, Keys, use_of
from pdp.impact.resource_groups import Group, Shape, renamed, shapes_of
from pdp.model import (
    Actor,
    Decision,
    Effect,
    OnResource,
    Question,
    Resource,
    ResourceRef,
    VerifiedToken,
)

DECISIONS_MAX: Final = 2_000_000
"""About a minute of one core."""
EXAMPLES_MAX: Final = 3
_KNOWN_MAX: Final = 20_000


class Example(NamedTuple):
    """One answer that differs."""

    user_id: str
    organization_id: str | None
    resource: ResourceRef | None
    before: Decision
    after: Decision


@dataclass(slots=True)
class Cell:
    """The answers for one permission that change in one direction."""

    permission: str
    effect: Effect
    """After; before it was the other one."""
    users: int = 0
    answers: int = 0
    examples: list[Example] = field(default_factory=list)

    @property
    def resource_type(self) -> str:
        """The type of the resources."""
        return self.permission.partition(":")[0]


@dataclass(slots=True)
class Impact:
    """What changes."""

    users: int
    """How many users there are in either world."""
    permissions: int
    cells: list[Cell] = field(default_factory=list)
    """Ordered by permission; without those in which nothing changes."""
    not_compared: dict[str, int] = field(default_factory=dict)
    """By permission: answers that were not compared, because they take too many decisions."""
    decisions: int = 0
    assumed: frozenset[str] = frozenset()
    """Variables that conditions of compared permissions read and that are not stored."""


def effective_differences(
    before: World, after: World, now: float, *, decisions_max: int = DECISIONS_MAX
) -> Impact:
    """Compares all answers at `now` (seconds since 1970-01-01 UTC)."""
    worlds = (before, after)
    users = sorted({*before.users, *after.users})
    names = {name for world in worlds for name, _ in world.policy.permissions.items()}
    impact = Impact(len(users), len(names))
    comparison = _Comparison(worlds, users, now, impact)
    for index, permission in enumerate(sorted(names)):
        # What earlier permissions left is for the others.
        share = (decisions_max - impact.decisions) // (len(names) - index)
        comparison.compare(permission, share)
    return impact


class _Comparison:
    def __init__(self, worlds: Worlds, users: Sequence[str], now: float, impact: Impact) -> None:
        self._worlds = worlds
        self._users = users
        self._indices = {user: index for index, user in enumerate(users)}
        self._now = now
        self._impact = impact
        self._refs: defaultdict[str, dict[ResourceRef, None]] = defaultdict(dict)
        for world in worlds:
            for ref in world.resources:
                self._refs[ref.type][ref] = None
        self._granted = frozenset(
            grant.scope.resource
            for world in worlds
            for facts in world.users.values()
            for grant in facts.grants
            if isinstance(grant.scope, OnResource)
        )
        # Ids that equal another text which is compared as it is are not renamed.
        fixed = {name for world in worlds for name in world.organizations} | {*self._refs, ""}
        for world in worlds:
            for facts in world.users.values():
                fixed.update(facts.memberships.values())
        self._renamable = frozenset(users) - fixed
        self._altered = frozenset(self._indices[user] for user in _altered_users(*worlds))
        self._same_types = worlds[0].policy.resource_types == worlds[1].policy.resource_types
        self._known: dict[tuple[str, str | None], list[Principal]] = {}
        self._classes = group_actors(worlds, users, self._principal)
        self._split: dict[object, list[ActorClass]] = {}

    def _principal(self, world: World, user: str, active: str | None) -> Principal:
        token = VerifiedToken(Actor(user, "", active), "", "", self._now + 60, {})
        organization = world.organizations.get(active) if active is not None else None
        return resolve_principal(
            world.policy, token, world.users.get(user), organization, self._now
        )

    def compare(self, permission: str, decisions_max: int) -> None:
        """Compares the answers for one permission."""
        before, after = (world.policy for world in self._worlds)
        all_differ = not self._same_types or (
            (permission in before.permissions) != (permission in after.permissions)
        )
        roles = frozenset(_roles_that_differ(before, after, permission))
        use = _use(self._worlds, permission)
        kind = permission.partition(":")[0]
        renamable = self._renamable - use.names if use.only_compares else frozenset[str]()
        shapes = shapes_of(
            self._worlds, self._refs[kind], use, renamable, granted=self._granted, now=self._now
        )
        some = [shape for shape in shapes if shape.changed or not roles.isdisjoint(shape.roles)]
        run = _Run(permission, len(self._users), decisions_max)
        split_by = _SplitBy(
            "actor.id" in use.reads,
            "actor.organization" in use.reads,
            use.reads.get("actor.attributes", frozenset()),
            use.names & self._renamable if use.only_compares else None,
        )
        for actor_class in self._classes:
            if all_differ or actor_class.changed or not roles.isdisjoint(actor_class.roles):
                wanted = shapes
            elif some or self._attributes_differ(actor_class, use):
                wanted = some
            else:
                continue
            for part in self._parts(actor_class, split_by, use, renamable):
                self._compare(run, part, shapes if part.changed else wanted)
        self._impact.decisions += run.decisions
        self._impact.cells += [cell for cell in run.cells.values() if cell.answers]
        if run.not_compared:
            self._impact.not_compared[permission] = run.not_compared
        if run.decisions:
            self._impact.assumed |= frozenset(NOT_STORED) & use.reads.keys()

    def _attributes_differ(self, actor_class: ActorClass, use: ConditionUse) -> bool:
        return "actor.attributes" in use.reads and not self._altered.isdisjoint(
            index for index, _ in actor_class.actors
        )

    def _attributes(self, world: int, user: str, use: ConditionUse) -> dict[str, object]:
        facts = self._worlds[world].users.get(user)
        return {} if facts is None else use.values("actor.attributes", facts.user.attributes)

    def _parts(
        self,
        actor_class: ActorClass,
        split_by: "_SplitBy",
        use: ConditionUse,
        renamable: frozenset[str],
    ) -> Sequence[ActorClass]:
        """The class split by what conditions read of the actor."""
        if not split_by.id and not split_by.organization and split_by.attributes == frozenset():
            return (actor_class,)
        key = (actor_class, split_by)
        known = self._split.get(key)
        if known is None:
            known = self._split[key] = list(
                self._split_class(actor_class, split_by, use, renamable)
            )
        return known

    def _split_class(
        self,
        actor_class: ActorClass,
        split_by: "_SplitBy",
        use: ConditionUse,
        renamable: frozenset[str],
    ) -> Iterator[ActorClass]:
        parts: dict[object, ActorClass] = {}
        for index, place in actor_class.actors:
            user = self._users[index]
            renames = user in renamable
            own = frozenset((user,)) if renames else frozenset[str]()
            attributes: list[dict[str, object]] = [{}, {}]
            texts = ["", ""]
            if split_by.attributes != frozenset():
                attributes = [self._attributes(world, user, use) for world in (0, 1)]
                texts = [json.dumps(renamed(part, own, {user: 0})) for part in attributes]
            key = (
                *texts,
                user if split_by.id and not renames else None,
                place.organization_id if split_by.organization else None,
            )
            part = parts.get(key)
            if part is None:
                others: dict[str, int] = {}
                if attributes[0] or attributes[1]:
                    renamed(attributes, renamable - own, others)
                changed = actor_class.changed or texts[0] != texts[1]
                part = parts[key] = ActorClass(changed, actor_class.roles, frozenset(others))
            part.actors.append((index, place))
        yield from parts.values()

    def _compare(self, run: "_Run", actor_class: ActorClass, shapes: Sequence[Shape]) -> None:
        """Compares the answers of actors that differ in ids and active organizations only."""
        for number, shape in enumerate(shapes):
            if run.is_over():
                run.not_compared += len(actor_class.actors) * sum(
                    rest.size for rest in shapes[number:]
                )
                return
            special = {
                id(group): group
                for user in actor_class.others
                for group in shape.owned.get(user, ())
            }
            for group in special.values():
                touched = self._touched(actor_class, group)
                self._ask_touched(run, touched, group)
                near = {actor for actors in touched for actor in actors}
                self._ask(run, [actor for actor in actor_class.actors if actor not in near], group)
            self._compare_rest(run, actor_class, shape, special)

    def _compare_rest(
        self, run: "_Run", actor_class: ActorClass, shape: Shape, special: Mapping[int, Group]
    ) -> None:
        """Compares for the groups of a shape without an id in `actor_class.others`. Each actor has
        one answer for all of them but those with the own id or a mark of the own place."""
        rest = shape.size - sum(len(group.refs) for group in special.values())
        if not rest:
            return
        near: Counter[ActorPlace] = Counter()
        for group in self._groups_near(actor_class, shape):
            if id(group) not in special:
                touched = self._touched(actor_class, group)
                self._ask_touched(run, touched, group)
                for actors in touched:
                    for actor in actors:
                        near[actor] += len(group.refs)
        answers = rest * len(actor_class.actors) - near.total()
        if not answers:
            return
        first = next(actor for actor in actor_class.actors if near[actor] < rest)
        group = next(
            group
            for group in shape.groups.values()
            if id(group) not in special
            and first[1].marks.isdisjoint(group.marks)
            and self._users[first[0]] not in group.users
        )
        example = self._example(run, first, group, answers)
        if example is not None:
            run.add([actor for actor in actor_class.actors if near[actor] < rest], answers, example)

    def _groups_near(self, actor_class: ActorClass, shape: Shape) -> Iterable[Group]:
        """Groups that may have a mark or the id of an actor."""
        if len(shape.groups) <= len(actor_class.actors):
            return shape.groups.values()
        found: dict[int, Group] = {}
        for index, place in actor_class.actors:
            for mark in place.marks:
                found.update((id(group), group) for group in shape.marked.get(mark, ()))
            found.update((id(group), group) for group in shape.owned.get(self._users[index], ()))
        return found.values()

    def _touched(self, actor_class: ActorClass, group: Group) -> list[list[ActorPlace]]:
        """The actors whose id or mark the group has, in lists with one answer each."""
        users = {self._indices[user] for user in group.users}
        by_user, by_mark = actor_class.by_user(), actor_class.by_mark()
        touched = [[actor] for index in users for actor in by_user.get(index, ())]
        places: dict[Place, list[ActorPlace]] = {}
        for mark in group.marks:
            places.update(by_mark.get(mark, {}))
        touched += [
            [actor for actor in actors if actor[0] not in users] for actors in places.values()
        ]
        return touched

    def _ask_touched(
        self, run: "_Run", touched: Iterable[Sequence[ActorPlace]], group: Group
    ) -> None:
        for actors in touched:
            self._ask(run, actors, group)

    def _ask(self, run: "_Run", actors: Sequence[ActorPlace], group: Group) -> None:
        """Compares the answers of these actors for the resources of a group."""
        if actors:
            answers = len(actors) * len(group.refs)
            example = self._example(run, actors[0], group, answers)
            if example is not None:
                run.add(actors, answers, example)

    def _example(
        self, run: "_Run", actor: ActorPlace, group: Group, answers: int
    ) -> Example | None:
        """The answers to an actor for the first resource of a group, if they differ."""
        if run.is_over():
            run.not_compared += answers
            return None
        run.decisions += len(self._worlds)
        user, active = self._users[actor[0]], actor[1].organization_id
        ref = group.refs[0]
        resource = None if ref is None else Resource(ref.type, ref.id)
        principals = self._known.get((user, active))
        if principals is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            principals = [self._principal(world, user, active) for world in self._worlds]
            self._known[user, active] = principals
        question = Question(run.permission, resource)
        before, after = (
            decide(principal, question, world.chain(resource))
            for principal, world in zip(principals, self._worlds, strict=True)
        )
        if before.effect is after.effect:
            return None
        return Example(user, active, ref, before, after)


class _SplitBy(NamedTuple):
    """What conditions read of the actor."""

    id: bool
    organization: bool
    attributes: Keys
    fixed: frozenset[str] | None
    """Ids of users that are not renamed; None: none are renamed."""


class _Run:
    """The comparison for one permission."""

    def __init__(self, permission: str, users: int, decisions_max: int) -> None:
        self.permission = permission
        self.decisions = 0
        self.decisions_max = decisions_max
        self.not_compared = 0
        self.cells = {effect: Cell(permission, effect) for effect in Effect}
        self._counted = {effect: bytearray(users) for effect in Effect}

    def is_over(self) -> bool:
        """Whether no more decisions may be made."""
        return self.decisions + 2 > self.decisions_max

    def add(self, actors: Iterable[ActorPlace], answers: int, example: Example) -> None:
        """Counts answers that change alike."""
        cell = self.cells[example.after.effect]
        cell.answers += answers
        if len(cell.examples) < EXAMPLES_MAX:
            cell.examples.append(example)
        counted = self._counted[example.after.effect]
        for index, _ in actors:
            if not counted[index]:
                counted[index] = 1
                cell.users += 1


def _altered_users(before: World, after: World) -> Iterator[str]:
    """Users of both worlds with other attributes. Equal documents share them."""
    for user, facts in before.users.items():
        other = after.users.get(user)
        if other is not None and not same_entity(facts.user, other.user):
            yield user


def _roles_that_differ(before: Policy, after: Policy, permission: str) -> Iterator[str]:
    for role in {*before.role_names(), *after.role_names()}:
        if before.rules_of(role, permission) != after.rules_of(role, permission):
            yield role


def _use(worlds: Worlds, permission: str) -> ConditionUse:
    return use_of(
        {
            rule.condition
            for world in worlds
            for role in world.policy.role_names()
            for rules in world.policy.rules_of(role, permission)
            for rule in rules
            if rule.condition is not None
        }
    )
