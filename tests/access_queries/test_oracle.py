"""Queries equal Check over random worlds, and a wrong query is found out."""

from dataclasses import replace

import pytest

from pdp.decision import search
from pdp.facts import candidates
from tests.access_queries.oracle import WORLDS, Difference, search_worlds
from tests.access_queries.service import QueryService


def test_lists_equal_check_in_random_worlds(service: QueryService) -> None:
    met = search_worlds(service, range(WORLDS))
    # Worlds in which everything or nothing is allowed would prove little.
    assert min(met["some"], met["none"], met["all"]) > WORLDS / 2


def _search(**changes):
    original = search.search_for

    def altered(*arguments):
        found = original(*arguments)
        return replace(found, **{name: change(found) for name, change in changes.items()})

    return altered


MUTANTS = {
    "no organization": (
        "pdp.access_queries.search_for",
        _search(organizations=lambda _: frozenset()),
    ),
    "no resources without an organization": (
        "pdp.access_queries.search_for",
        _search(
            organizations=lambda found: found.organizations - {None},
            root_organizations=lambda found: found.root_organizations - {None},
        ),
    ),
    "no grants on resources": (
        "pdp.access_queries.search_for",
        _search(roots=lambda _: frozenset()),
    ),
    "no grants to organization roles on resources": (
        "pdp.access_queries.search_for",
        _search(roles=lambda _: frozenset()),
    ),
    "no grants everywhere": (
        "pdp.access_queries.search_for",
        _search(everything=lambda _: False),
    ),
    "no descendants": (
        "pdp.facts.candidates._below_roots",
        lambda _, found, __: {(root.type, root.id) for root in found.roots},
    ),
    "order of a language": (
        "pdp.facts.candidates.sorted",
        lambda found: sorted(found, key=lambda one: str(one).casefold()),
    ),
    "whatever is found is allowed": ("pdp.access_queries._allows", lambda *_: True),
    "one candidate too few": (
        "pdp.facts.survey.find_candidates",
        lambda reader, found, after, limit: candidates.find_candidates(reader, found, after, limit)[
            : limit - 1
        ],
    ),
}


@pytest.mark.parametrize(("name", "mutant"), MUTANTS.values(), ids=MUTANTS.keys())
def test_a_wrong_query_is_found_out(
    service: QueryService, monkeypatch: pytest.MonkeyPatch, name: str, mutant: object
) -> None:
    monkeypatch.setattr(name, mutant, raising=False)
    with pytest.raises(Difference):
        search_worlds(service, range(300))
