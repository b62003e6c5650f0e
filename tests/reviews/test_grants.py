"""Lists of grants equal brute force over random worlds, whatever is written between pages."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random
from unittest.mock import patch

import pytest
from sqlalchemy import Engine, insert

from pdp.audit import DecisionRecord, Findings, Missing
from pdp.audit.tables import audit_periods
from pdp.database.engine import begin_write
from pdp.facts import Store
from pdp.model import Grant, InOrganization, Membership, Role, ToUser
from pdp.reviews import GrantFindingPage, GrantReviews
from tests.kit import soak
from tests.kit.facts.writing import write
from tests.kit.reviews.logs import ALLOWED, record_at, store_records
from tests.kit.reviews.worlds import DAY, NOW, GrantWorld, random_grant_world

WORLDS = soak.count(2_000, sample=8)
PAGES_MAX = 100
ROWS_MAX = "pdp.facts.store.grant_lists.SCAN_ROWS_MAX"
List = Callable[[Sequence[str], int], GrantFindingPage]


@pytest.fixture
def reviews(store: Store, engine: Engine) -> GrantReviews:
    return GrantReviews(store, Findings(engine), clock=lambda: NOW)


def pages(ask: List, limit: int) -> Iterator[list[Grant]]:
    after: Sequence[str] = ()
    for _ in range(PAGES_MAX):
        page = ask(after, limit)
        assert len(page.findings) <= limit
        yield [finding.grant for finding in page.findings]
        after = page.after
        if not after:
            return
    raise AssertionError("the pages do not end")


def listed(ask: List, limit: int) -> list[Grant]:
    return [grant for page in pages(ask, limit) for grant in page]


def compare(reviews: GrantReviews, world: GrantWorld, random: Random) -> dict[str, int]:
    """How many grants each list held."""
    days = random.randint(1, 12)
    expected: dict[str, tuple[List, list[Grant]]] = {
        "ending": (lambda after, limit: reviews.ending(days, after, limit), world.ending(days)),
        "cross-tenant": (reviews.cross_tenant, world.cross_tenant()),
        "disabled": (reviews.of_disabled_users, world.of_disabled_users()),
    }
    for name, (ask, wanted) in expected.items():
        with patch(ROWS_MAX, random.choice([1, 2, 5, 10_000])):
            assert listed(ask, random.randint(1, 5)) == wanted, name
    return {name: len(wanted) for name, (_, wanted) in expected.items()}


@pytest.mark.soak
def test_lists_of_grants_equal_brute_force_in_random_worlds(
    reviews: GrantReviews, store: Store
) -> None:
    met: dict[str, int] = {}
    for seed in range(WORLDS):
        random = Random(seed)
        world = random_grant_world(random)
        world.store(store)
        try:
            for name, count in compare(reviews, world, random).items():
                met[name] = met.get(name, 0) + count
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    # Worlds in which no grant is found would prove little.
    assert min(met.values()) > WORLDS


def test_a_list_that_ignores_memberships_would_be_found_out(
    reviews: GrantReviews, store: Store
) -> None:
    """The control."""

    def compare_without_memberships() -> None:
        for seed in range(WORLDS):
            random = Random(seed)
            world = random_grant_world(random)
            replace(world, memberships=()).store(store)
            compare(reviews, world, random)

    with pytest.raises(AssertionError, match="cross-tenant"):
        compare_without_memberships()


def test_what_does_not_change_is_on_exactly_one_page_whatever_else_is_written(
    reviews: GrantReviews, store: Store
) -> None:
    def granted(*numbers: int) -> list[Grant]:
        return [Grant(f"g{n:03d}", "A", ToUser("user_1"), InOrganization("org")) for n in numbers]

    write(store, Role("A"), *granted(*range(0, 40, 2)))
    random = Random(1)
    seen: list[str] = []
    for page in pages(reviews.cross_tenant, 3):
        seen += [grant.id for grant in page]
        with store.write() as transaction:
            transaction.apply_many(granted(random.randrange(1, 40, 2)))
            transaction.delete(Grant, (f"g{random.randrange(1, 40, 2):03d}",))
    assert [one for one in seen if int(one[1:]) % 2 == 0] == [f"g{n:03d}" for n in range(0, 40, 2)]
    assert len(seen) == len(set(seen))


def test_a_page_that_finds_nothing_goes_on(reviews: GrantReviews, store: Store) -> None:
    """A flood of harmless grants makes a list longer to read, and hides nothing."""
    harmless = [Grant(f"g{n:04d}", "A", ToUser("user_1"), InOrganization("org")) for n in range(50)]
    finding = Grant("g9999", "A", ToUser("user_2"), InOrganization("org"))
    write(store, Role("A"), *harmless, finding)
    write(store, Membership("org", "user_1", "org:member"))
    with patch(ROWS_MAX, 10):
        found = list(pages(reviews.cross_tenant, 5))
    assert found[:5] == [[]] * 5
    assert [one.id for page in found for one in page] == ["g9999"]


# --- unused grants --------------------------------------------------------------------------------


def uses(random: Random, grants: Sequence[Grant]) -> list[DecisionRecord]:
    """Decisions at times around the window: allows name a grant, denials one or none."""
    records = []
    for number in range(random.randint(0, 12)):
        grant_id = random.choice([None, *(grant.id for grant in grants)])
        effect = ALLOWED if grant_id is not None and random.random() < 0.7 else {}
        records.append(
            record_at(
                NOW - random.choice([0.01, 5, 9.5, 10.5, 40]) * DAY,
                number,
                **effect,
                grant_id=grant_id,
                reported_by=random.choice([None, None, None, "edge"]),
            )
        )
    return records


def logs(engine: Engine, *, since: float, allows: bool = True, until: float = 0.0) -> None:
    """A process logged from and to so many days before NOW."""
    row = {"id": f"{since}", "origin": "pdp", "allows": allows, "ended": True}
    row |= {"started_at": NOW + since * DAY, "complete_until": NOW + until * DAY}
    with begin_write(engine) as connection:
        connection.execute(insert(audit_periods).values(row | {"seen_at": NOW + until * DAY}))


@pytest.mark.soak
def test_unused_grants_equal_a_hand_count(
    reviews: GrantReviews, store: Store, engine: Engine
) -> None:
    logs(engine, since=-100)
    met = 0
    for seed in range(WORLDS):
        random = Random(seed)
        world = random_grant_world(random)
        world.store(store)
        records = uses(random, world.grants)
        store_records(engine, records)
        expected = {}
        for grant in world.grants:
            begun = grant.not_before is None or grant.not_before <= NOW
            if not begun or (grant.expires_at is not None and grant.expires_at <= NOW):
                continue
            own = [one for one in records if one.grant_id == grant.id and not one.reported_by]
            last = max((one.decided_at for one in own), default=None)
            if last is None or last < NOW - 10 * DAY:
                expected[grant.id] = last
        found: dict[str, float | None] = {}
        after: Sequence[str] = ()
        with patch("pdp.reviews.grants.USES_MAX", random.choice([1, 3, 500])):
            while True:
                page = reviews.unused(10, after, random.randint(1, 4))
                assert page.coverage is not None
                assert page.coverage.uncovered == []
                found |= {one.grant.id: one.last_used_at for one in page.findings}
                after = page.after
                if not after:
                    break
        assert found == expected, f"seed {seed}"
        assert list(found) == sorted(found, key=str.encode)
        met += len(found)
    assert met > WORLDS


def test_unrecorded_allows_and_gaps_are_declared_with_the_findings(
    reviews: GrantReviews, store: Store, engine: Engine
) -> None:
    grant = Grant("g", "A", ToUser("user_1"))
    write(store, Role("A"), grant)
    logs(engine, since=-100)
    logs(engine, since=-6, until=-4, allows=False)
    page = reviews.unused(10, (), 10)
    assert [one.grant for one in page.findings] == [grant]
    coverage = page.coverage
    assert coverage is not None
    assert [(part.since, part.until, part.why) for part in coverage.uncovered] == [
        (NOW - 6 * DAY, NOW - 4 * DAY, Missing.ALLOWS_NOT_LOGGED)
    ]
    assert coverage.covered_seconds == 8 * DAY


def test_no_grant_is_called_unused_while_allows_are_not_recorded(
    reviews: GrantReviews, store: Store, engine: Engine
) -> None:
    write(store, Role("A"), Grant("g", "A", ToUser("user_1")))
    logs(engine, since=-100, allows=False)
    page = reviews.unused(10, (), 10)
    assert (page.findings, page.after) == ((), ())
    assert page.coverage is not None
    assert page.coverage.covered_seconds == 0
