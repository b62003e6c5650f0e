"""Queries equal Check over random worlds, and a wrong query is found out."""

from dataclasses import replace

import pytest

from pdp.decision import decide, search
from pdp.decision.evaluate import applicable
from pdp.facts.store import candidates
from pdp.model import Effect
from tests.kit import soak
from tests.kit.access_queries.oracle import (
    Difference,
    assert_not_degenerate,
    compare_actors,
    compare_all,
    compare_permissions,
    compare_resources,
    search_worlds,
)
from tests.kit.access_queries.service import QueryService

SEEDS = soak.seeds(20_000, sample=30)
"""Half of them for each engine."""


@pytest.mark.soak
def test_queries_equal_check_in_random_worlds(service: QueryService) -> None:
    seeds = SEEDS[service.store.engine.dialect.name == "postgresql" :: 2]
    assert_not_degenerate(search_worlds(service, seeds, compare_all), len(seeds))


def altered(function, **changes):
    """The same function, of whose result some fields are something else."""

    def call(*arguments):
        found = function(*arguments)
        return replace(found, **{name: change(found) for name, change in changes.items()})

    return call


def resources(**changes):
    """What is wrong with the search for resources."""
    mutant = altered(search.search_for, **changes)
    return compare_resources, "pdp.access_queries.search_for", mutant


def actors(**changes):
    """What is wrong with the search for actors."""
    mutant = altered(search.search_for_actors, **changes)
    return compare_actors, "pdp.access_queries.search_for_actors", mutant


def nothing(_):
    return frozenset()


def _without_deny(refusal, found, *rest):
    return (refusal, (found[0], []), *rest)


MUTANTS = {
    "no organization": resources(organizations=nothing),
    "no resources without an organization": resources(
        organizations=lambda found: found.organizations - {None},
        root_organizations=lambda found: found.root_organizations - {None},
    ),
    "no grants on resources": resources(roots=nothing),
    "no grants to organization roles on resources": resources(roles=nothing),
    "no grants everywhere": resources(everything=lambda _: False),
    "no descendants": (
        compare_resources,
        "pdp.facts.store.candidates._below_roots",
        lambda _, found, __: {(root.type, root.id) for root in found.roots},
    ),
    "order of a language": (
        compare_resources,
        "pdp.facts.store.candidates.sorted",
        lambda found: sorted(found, key=lambda one: str(one).casefold()),
    ),
    "whatever is found is allowed": (
        compare_resources,
        "pdp.access_queries.AccessQueries._allows",
        lambda *_: True,
    ),
    "one candidate too few": (
        compare_resources,
        "pdp.facts.replica.survey.find_candidates",
        lambda reader, found, after, limit: candidates.find_candidates(reader, found, after, limit)[
            : limit - 1
        ],
    ),
    "whatever is asked is allowed": (
        compare_permissions,
        "pdp.access_queries.AccessQueries._allows",
        lambda *_: True,
    ),
    "the context is not read": (
        compare_permissions,
        "pdp.access_queries.AccessQueries._allows",
        lambda _, principal, question, chain: (
            decide(principal, question._replace(context={}), chain).effect is Effect.ALLOW
        ),
    ),
    "no members": actors(organization_roles=nothing),
    "no grants to users on resources": actors(resources=nothing),
    "only the resource's organization": actors(
        organizations=lambda found: found.organizations or frozenset()
    ),
    "deny rules do not count": (
        compare_actors,
        "pdp.decision.paths.applicable",
        lambda *arguments: _without_deny(*applicable(*arguments)),
    ),
    "tenants are no walls": (
        compare_actors,
        "pdp.decision.paths.applicable",
        lambda *arguments: (*applicable(*arguments)[:2], 0, None, 0.0),
    ),
}
FOUND_AT = {
    "no resources without an organization": 5,
    "no grants to organization roles on resources": 5,
    "no grants everywhere": 10,
    "order of a language": 58,
    "whatever is found is allowed": 5,
    "the context is not read": 17,
    "no members": 8,
    "only the resource's organization": 22,
}
"""Seeds that are known to find a mutant, to look there first."""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("mutation", MUTANTS)
def test_a_wrong_query_is_found_out(
    service: QueryService, monkeypatch: pytest.MonkeyPatch, mutation: str
) -> None:
    compare, name, mutant = MUTANTS[mutation]
    monkeypatch.setattr(name, mutant, raising="sorted" not in name)
    with pytest.raises(Difference):
        search_worlds(service, [FOUND_AT.get(mutation, 0), *range(300)], compare)
