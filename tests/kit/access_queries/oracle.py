"""Compares what queries list with what Check answers, over random worlds.

A world is loaded once and asked little: another world finds more than another question.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from unittest.mock import patch

from pdp.access_queries import AllowedActor
from pdp.model import Effect, Question, Resource
from tests.kit.access_queries.service import CALLER, QueryService, token_without_claims
from tests.kit.access_queries.worlds import (
    ORGANIZATIONS,
    PERMISSIONS,
    TYPES,
    USERS,
    World,
    random_world,
)
from tests.kit.waiting import run

PAGES_MAX = 200

Compare = Callable[[QueryService, World, Random], Counter[str]]


class Difference(AssertionError):
    """A query and Check disagree."""


def listed(
    service: QueryService, token: str, permission: str, resource_type: str, size: int
) -> list[str]:
    """All pages of ListAllowedResources."""
    ids: list[str] = []
    place = None
    for _ in range(PAGES_MAX):
        _, page = run(
            service.queries.resources(
                token, permission, resource_type, {}, CALLER, size=size, place=place
            )
        )
        ids += page.ids
        place = page.after
        if place is None:
            return ids
    raise Difference("the pages do not end")


def compare_resources(service: QueryService, world: World, random: Random) -> Counter[str]:
    """Lists for each actor one permission, with small bounds, so that every way of finding
    candidates is taken. Returns how many lists held nothing, something and everything. Raises
    Difference."""
    met: Counter[str] = Counter()
    for token in world.tokens:
        permission, type_ = random.choice(PERMISSIONS), random.choice(TYPES)
        stored = [one for one in world.resources if one.type == type_]
        expected = sorted(one.id for one in service.allowed(token, permission, stored))
        size = random.randint(1, 5)
        with (
            patch("pdp.facts.store.candidates.WALK_MAX", random.choice([1, 3, 10_000])),
            patch("pdp.access_queries.CANDIDATES_MAX", random.randint(size, 8)),
        ):
            found = listed(service, token, permission, type_, size)
        if found != expected:
            raise Difference(f"{permission} on {type_}: {found}, Check allows {expected}")
        met["all" if len(found) == len(stored) else "some" if found else "none"] += 1
    return met


def compare_permissions(service: QueryService, world: World, random: Random) -> Counter[str]:
    """All permissions of one actor on stored and other resources, against Check for each. Raises
    Difference."""
    met: Counter[str] = Counter()
    others = [Resource("course", "sent", "org_1", None, {"owner": "user_1"}), Resource("note", "1")]
    resources = [*random.sample(world.resources, 3), *others]
    context = {"place": random.choice(["office", "home"])}
    token = random.choice(world.tokens)
    _, results = run(service.queries.permissions(token, resources, context, CALLER))
    questions = [
        Question(name, resource, context)
        for resource in resources
        for name in PERMISSIONS
        if name.startswith(f"{resource.type}:")
    ]
    decisions = run(service.authorizer.rule(token, questions, CALLER)).decisions
    for resource, result in zip(resources, results, strict=True):
        expected: tuple[list[str], list[str]] = ([], [])
        for question, decision in zip(questions, decisions, strict=True):
            if question.resource is resource:
                expected[decision.effect is not Effect.ALLOW].append(question.permission)
        if (list(result.allowed), list(result.denied)) != expected:
            raise Difference(f"{resource}: {result}, Check says {expected}")
        met["some" if all(expected) else "all" if expected[0] else "none"] += 1
    return met


def compare_actors(service: QueryService, world: World, random: Random) -> Counter[str]:
    """Compares the listed actors with Check, by user and organization. Raises Difference."""
    met: Counter[str] = Counter()
    resource, permission = random.choice([None, *world.resources]), random.choice(PERMISSIONS)
    actors: dict[tuple[str, str], AllowedActor] = {}
    after: tuple[str, str] | None = ("", "")
    for _ in range(PAGES_MAX):
        with patch("pdp.access_queries.CANDIDATES_MAX", random.randint(1, 4)):
            _, page = run(
                service.queries.actors(
                    permission, resource, CALLER, size=random.randint(1, 3), after=after
                )
            )
        actors |= {(one.user_id, one.organization_id): one for one in page.actors}
        after = page.after
        if after is None:
            break
    else:
        raise Difference("the pages do not end")
    for user in USERS:
        for active in ("", *ORGANIZATIONS):
            met[compare_actor(service, permission, resource, (user, active), actors)] += 1
    if list(actors) != sorted(actors):
        raise Difference("the actors are not in order")
    return met


def compare_actor(
    service: QueryService,
    permission: str,
    resource: Resource | None,
    session: tuple[str, str],
    actors: dict[tuple[str, str], AllowedActor],
) -> str:
    """Returns how an actor was met. Check asks by a token without claims and by a context that
    meets the conditions of the context."""
    user, active = session
    question = Question(permission, resource, {"place": "office"})
    token = token_without_claims(user, active or None)
    [decision] = run(service.authorizer.rule(token, [question], CALLER)).decisions
    listed_as = actors.get(session)
    if decision.effect is Effect.ALLOW:
        paths = listed_as.paths.allowed_by if listed_as else ()
        if (decision.rule_id, decision.grant_id) not in {(p.rule_id, p.grant.id) for p in paths}:
            raise Difference(f"{permission} on {resource}: {session} may, and is not listed so")
        return "allowed"
    if listed_as is None:
        return "not listed"
    paths = listed_as.paths
    if all(path.condition for path in paths.allowed_by) or paths.denied_by:
        return "depends"
    raise Difference(f"{permission} on {resource}: {session} may not, and is listed")


def compare_all(service: QueryService, world: World, random: Random) -> Counter[str]:
    """All comparisons; counts by comparison and outcome. Raises Difference."""
    parts = {
        "resources": compare_resources,
        "permissions": compare_permissions,
        "actors": compare_actors,
    }
    return Counter(
        {
            f"{name}: {outcome}": count
            for name, compare in parts.items()
            for outcome, count in compare(service, world, random).items()
        }
    )


def assert_not_degenerate(met: Counter[str], worlds: int) -> None:
    """Worlds in which everything or nothing is allowed would prove little."""
    for name, outcomes in {
        "resources": ("some", "none", "all"),
        "permissions": ("some", "none", "all"),
        "actors": ("allowed", "depends", "not listed"),
    }.items():
        assert min(met[f"{name}: {outcome}"] for outcome in outcomes) > worlds / 20, met


def search_worlds(service: QueryService, seeds: Iterable[int], compare: Compare) -> Counter[str]:
    """Compares all worlds of these seeds, and counts what was met.

    Raises Difference, which names the seed.
    """
    met: Counter[str] = Counter()
    for seed in seeds:
        random = Random(seed)
        world = random_world(random)
        service.replace_all(world.entities)
        try:
            met += compare(service, world, random)
        except Difference as error:
            raise Difference(f"seed {seed}: {error}") from None
    return met
