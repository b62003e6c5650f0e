"""`effective_differences` is compared with all answers asked one by one."""

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from pdp.document import Asked as DocumentAsked
from pdp.document import PolicyDocument, World
from pdp.impact import Impact, effective, effective_differences
from pdp.impact.condition_use import use_of
from pdp.model import (
    Actor,
    Decision,
    Effect,
    Grant,
    Permission,
    Question,
    Resource,
    ResourceRef,
    Role,
    Rule,
    ToUser,
    User,
)
from tests.impact.documents import NOW, changed_document, random_document
from tests.kit import soak

Counts = dict[tuple[str, Effect], tuple[int, int]]


def brute_force(before: World, after: World) -> Counts:
    """(permission, effect after) -> users and answers."""
    answers: Counter[tuple[str, Effect]] = Counter()
    users: dict[tuple[str, Effect], set[str]] = {}
    worlds = (before, after)
    refs = {ref for world in worlds for ref in world.resources}
    names = {name for world in worlds for name, _ in world.policy.permissions.items()}
    for user in {*before.users, *after.users}:
        active: set[str | None] = {None}
        for world in worlds:
            if user in world.users:
                active.update(world.users[user].memberships)
        for organization in active:
            for permission in names:
                kind = permission.partition(":")[0]
                for ref in [None, *(ref for ref in refs if ref.type == kind)]:
                    one, other = (
                        ask(world, user, organization, permission, ref) for world in worlds
                    )
                    if one.effect is not other.effect:
                        cell = (permission, other.effect)
                        answers[cell] += 1
                        users.setdefault(cell, set()).add(user)
    return {cell: (len(users[cell]), count) for cell, count in answers.items()}


def ask(
    world: World, user: str, organization: str | None, permission: str, ref: ResourceRef | None
) -> Decision:
    resource = None if ref is None else Resource(ref.type, ref.id)
    asked = DocumentAsked(Actor(user, "", organization), Question(permission, resource))
    return world.situation(asked, NOW).decide()


def counts(impact: Impact) -> Counts:
    return {(cell.permission, cell.effect): (cell.users, cell.answers) for cell in impact.cells}


def worlds_of(seed: int) -> tuple[World, World]:
    chance = Random(seed)
    document = random_document(chance)
    return World(document), World(changed_document(chance, document))


@pytest.mark.soak
def test_the_counts_are_those_of_asking_everything_one_by_one() -> None:
    flips = 0
    for seed in range(soak.count(6_000, sample=60)):
        before, after = worlds_of(seed)
        found = effective_differences(before, after, NOW)
        wanted = brute_force(before, after)
        assert counts(found) == wanted, f"seed {seed}"
        flips += sum(count for _, count in wanted.values())
        for cell in found.cells:
            for example in cell.examples:
                asked = (
                    example.user_id,
                    example.organization_id,
                    cell.permission,
                    example.resource,
                )
                assert ask(before, *asked) == example.before
                assert ask(after, *asked) == example.after
    assert flips > soak.count(200, sample=100)


@pytest.mark.parametrize(
    "claimed", [{"reads": {}}, {"only_compares": True, "names": frozenset()}], ids=str
)
def test_the_comparison_notices_users_and_resources_that_are_grouped_wrongly(
    monkeypatch: pytest.MonkeyPatch, claimed: dict[str, Any]
) -> None:
    monkeypatch.setattr(
        effective, "use_of", lambda conditions: replace(use_of(conditions), **claimed)
    )
    assert any(
        counts(effective_differences(*worlds, NOW)) != brute_force(*worlds)
        for worlds in map(worlds_of, range(400))
    )


def test_a_comparison_that_takes_too_many_decisions_says_how_many_answers_it_left_out() -> None:
    before, after = next(
        worlds for worlds in map(worlds_of, range(100)) if len(brute_force(*worlds)) > 1
    )
    whole = effective_differences(before, after, NOW)
    part = effective_differences(before, after, NOW, decisions_max=8)
    assert whole.decisions > part.decisions
    assert part.decisions <= 8
    assert not whole.not_compared
    assert sum(part.not_compared.values()) > 0


def test_the_same_policy_changes_nothing_and_decides_nothing() -> None:
    world = World(random_document(Random(1)))
    impact = effective_differences(world, world, NOW)
    assert (impact.cells, impact.decisions) == ([], 0)


def test_one_decision_serves_all_users_who_own_nothing() -> None:
    users = tuple(User(f"user_{index}") for index in range(2_000))
    document = PolicyDocument(
        permissions=(Permission("course:edit"),),
        roles=(Role("A"),),
        rules=(Rule("r", "A", Effect.ALLOW, "course:edit", "false"),),
        grants=tuple(Grant(f"g{user.id}", "A", ToUser(user.id)) for user in users),
        users=users,
        resources=tuple(
            Resource("course", str(index), attributes={"owner": f"user_{index}"})
            for index in range(100)
        ),
    )
    owners = "resource.attributes.owner == actor.id"
    rules = (Rule("r", "A", Effect.ALLOW, "course:edit", owners),)
    impact = effective_differences(World(document), World(replace(document, rules=rules)), NOW)
    assert counts(impact) == {("course:edit", Effect.ALLOW): (100, 100)}
    assert impact.decisions < 500


def test_variables_that_are_not_stored_are_named() -> None:
    document = replace(
        random_document(Random(1)),
        rules=(Rule("r", "A", Effect.ALLOW, "*", "context.place == 'office'"),),
    )
    other = replace(document, rules=(Rule("r", "A", Effect.ALLOW, "*", "actor.claims.x == 'y'"),))
    impact = effective_differences(World(document), World(other), NOW)
    assert impact.assumed == {"context", "actor.claims"}
