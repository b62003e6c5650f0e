"""Compares what queries list with what Check answers, over random worlds.

python -m pytest tests/access_queries            # a seeded sample
QUERY_WORLDS=20000 python -m pytest ...          # as many as wanted, as in `make soak`
"""

import os
from collections import Counter
from random import Random
from unittest.mock import patch

from tests.access_queries.service import CALLER, QueryService
from tests.access_queries.worlds import PERMISSIONS, TYPES, World, random_world
from tests.kit.waiting import run

WORLDS = int(os.environ.get("QUERY_WORLDS", "25"))
PAGES_MAX = 200


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
        place = page.goes_on
        if place is None:
            return ids
    raise Difference("the pages do not end")


def compare_resources(service: QueryService, world: World, random: Random) -> Counter[str]:
    """Lists with small bounds, so that every way of finding candidates is taken. Returns how many
    lists held nothing, something and everything. Raises Difference."""
    met: Counter[str] = Counter()
    for token in world.tokens:
        for permission in PERMISSIONS:
            type_ = random.choice(TYPES)
            stored = [one for one in world.resources if one.type == type_]
            expected = sorted(one.id for one in service.allowed(token, permission, stored))
            size = random.randint(1, 5)
            with (
                patch("pdp.facts.candidates.WALK_MAX", random.choice([1, 3, 10_000])),
                patch("pdp.access_queries.CANDIDATES_MAX", random.randint(size, 8)),
            ):
                found = listed(service, token, permission, type_, size)
            if found != expected:
                raise Difference(f"{permission} on {type_}: {found}, Check allows {expected}")
            met["all" if len(found) == len(stored) else "some" if found else "none"] += 1
    return met


def search_worlds(service: QueryService, seeds: range) -> Counter[str]:
    """Compares all worlds of these seeds. Raises Difference, which names the seed."""
    met: Counter[str] = Counter()
    for seed in seeds:
        random = Random(seed)
        world = random_world(random)
        service.replace_all(world.entities)
        try:
            met += compare_resources(service, world, random)
        except Difference as error:
            raise Difference(f"seed {seed}: {error}") from None
    return met
