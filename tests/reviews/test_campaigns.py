"""Campaigns: frozen grants, final verdicts, and grants that change meanwhile."""

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import make_url

from pdp.database.engine import open_engine
from pdp.errors import (
    AlreadyExists,
    CallerNotAllowed,
    LimitExceeded,
    NotFound,
    PdpError,
    RevisionChanged,
)
from pdp.facts import Store, renew_epoch
from pdp.model import Grant, InOrganization, Role, ToUser
from pdp.reviews import Campaign, CampaignItem, Campaigns, Outcome
from tests.kit.facts.writing import write

NOW = 1_790_000_000.0
GRANTS = [
    Grant("g1", "A", ToUser("user_1"), InOrganization("org_1"), 5.5, NOW + 0.123456789),
    Grant("g2", "B", ToUser("user_2")),
    Grant("g3", "A", ToUser("é\U0001f600'\""), InOrganization("org_2")),
]


class Desk:
    """Campaigns on a database with GRANTS."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = NOW
        self.written: list[int] = []
        self.campaigns = Campaigns(store, on_write=self.written.append, clock=lambda: self.now)
        write(store, Role("A"), Role("B"), *GRANTS)

    def create(self, role: str = "", organization_id: str = "") -> Campaign:
        return self.campaigns.create("Q4", "auditor", role=role, organization_id=organization_id)

    def items(self, campaign: Campaign, size: int = 100) -> list[CampaignItem]:
        found: list[CampaignItem] = []
        after = 0
        while True:
            page = self.campaigns.items(campaign.id, after, size)
            found += page.items
            if page.after is None:
                return found
            after = page.after

    def decide(
        self, campaign: Campaign, number: int, outcome: Outcome = Outcome.CERTIFIED
    ) -> CampaignItem:
        return self.campaigns.decide(campaign.id, number, outcome, "maria", "because")

    def revision(self) -> int:
        with self.store.read() as reader:
            return reader.revision

    def grant(self, grant_id: str) -> Grant | None:
        with self.store.read() as reader:
            return reader.get(Grant, (grant_id,))


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


def test_a_campaign_freezes_the_grants_of_a_revision(desk: Desk) -> None:
    campaign = desk.create()
    assert (campaign.items, campaign.revision) == (3, desk.revision())
    write(desk.store, replace(GRANTS[0], role="B"), Grant("g0", "A", ToUser("user_9")))
    with desk.store.write() as transaction:
        transaction.delete(Grant, ("g2",))
    for size in (1, 2, 100):
        found = desk.items(campaign, size)
        assert [item.grant for item in found] == GRANTS
        assert [item.number for item in found] == [1, 2, 3]
    assert [item.now for item in found] == [replace(GRANTS[0], role="B"), None, GRANTS[2]]


def test_a_campaign_may_be_about_a_role_or_an_organization(desk: Desk) -> None:
    assert [item.grant for item in desk.items(desk.create(role="B"))] == [GRANTS[1]]
    assert [item.grant for item in desk.items(desk.create("A", "org_2"))] == [GRANTS[2]]
    with pytest.raises(NotFound):
        desk.create(role="C")


def test_a_certified_grant_stays_and_the_policy_does_not_change(desk: Desk) -> None:
    campaign, before = desk.create(), desk.revision()
    item = desk.decide(campaign, 1)
    assert item.verdict is not None
    assert (item.verdict.outcome, item.verdict.reviewer) == (Outcome.CERTIFIED, "maria")
    assert desk.items(campaign)[0] == item
    assert (desk.grant("g1"), desk.revision(), desk.written) == (GRANTS[0], before, [])
    assert desk.campaigns.list("", 10)[0].decided == 1


def test_a_revoked_grant_is_deleted_with_its_verdict(desk: Desk) -> None:
    campaign, before = desk.create(), desk.revision()
    item = desk.decide(campaign, 2, Outcome.REVOKED)
    assert (desk.grant("g2"), item.now) == (None, None)
    assert item.verdict is not None
    assert item.verdict.revision == desk.revision() == before + 1
    assert desk.written == [before + 1]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_no_verdict_is_given_about_a_grant_that_changed_since(desk: Desk, outcome: Outcome) -> None:
    """The reviewer saw another grant than the one that holds now."""
    campaign = desk.create()
    changed = replace(GRANTS[0], scope=InOrganization("org_2"))
    write(desk.store, changed)
    with desk.store.write() as transaction:
        transaction.delete(Grant, ("g2",))
    for number in (1, 2):
        with pytest.raises(RevisionChanged):
            desk.decide(campaign, number, outcome)
    assert [item.verdict for item in desk.items(campaign)] == [None] * 3
    assert desk.grant("g1") == changed


@pytest.mark.parametrize("reviewer", ["user_2", "console:user_2"])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_nobody_decides_about_a_grant_to_themselves(
    desk: Desk, outcome: Outcome, reviewer: str
) -> None:
    campaign, before = desk.create(), desk.revision()
    with pytest.raises(CallerNotAllowed):
        desk.campaigns.decide(campaign.id, 2, outcome, reviewer, "because")
    assert [item.is_to(reviewer) for item in desk.items(campaign)] == [False, True, False]
    assert desk.items(campaign)[1].verdict is None
    assert (desk.grant("g2"), desk.revision(), desk.written) == (GRANTS[1], before, [])
    # They decide about the others, and others about theirs.
    desk.campaigns.decide(campaign.id, 1, outcome, reviewer, "because")
    desk.decide(campaign, 2, outcome)


def test_a_verdict_is_final(desk: Desk) -> None:
    campaign = desk.create()
    desk.decide(campaign, 1)
    for outcome in Outcome:
        with pytest.raises(AlreadyExists):
            desk.decide(campaign, 1, outcome)
    assert desk.grant("g1") == GRANTS[0]


def test_of_two_reviewers_at_once_one_decides(desk: Desk) -> None:
    campaign = desk.create()
    results: list[object] = []

    def decide(outcome: Outcome) -> None:
        try:
            results.append(desk.decide(campaign, 1, outcome).verdict)
        except PdpError as error:
            results.append(type(error))

    threads = [threading.Thread(target=decide, args=(outcome,)) for outcome in Outcome]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (loser,) = [one for one in results if isinstance(one, type)]
    assert loser is AlreadyExists
    (item, *_) = desk.items(campaign)
    assert item.verdict in results
    assert (desk.grant("g1") is None) == (item.verdict.outcome is Outcome.REVOKED)


def test_items_and_campaigns_that_do_not_exist_are_not_found(desk: Desk) -> None:
    campaign = desk.create()
    for campaign_id, number in ((campaign.id, 4), (campaign.id, 0), ("x'; --", 1)):
        with pytest.raises(NotFound):
            desk.campaigns.decide(campaign_id, number, Outcome.CERTIFIED, "maria", "x")
    with pytest.raises(NotFound):
        desk.campaigns.items("x", 0, 10)


def test_a_flood_of_campaigns_ends_until_the_next_day(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.reviews.campaigns.CAMPAIGNS_PER_DAY_MAX", 3)
    for _ in range(3):
        desk.create()
    with pytest.raises(LimitExceeded):
        desk.create()
    desk.now += 86_401
    desk.create()


def test_a_campaign_that_would_be_too_long_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.reviews.campaigns.ITEMS_MAX", 2)
    with pytest.raises(LimitExceeded):
        desk.create()
    assert desk.create(role="A").items == 2
    assert len(desk.campaigns.list("", 10)) == 1


def test_campaigns_are_listed_newest_first_page_by_page(desk: Desk) -> None:
    created = [desk.create() for _ in range(5)]
    listed: list[Campaign] = []
    while page := desk.campaigns.list(listed[-1].id if listed else "", 2):
        listed += page
    assert listed == created[::-1]


def test_after_a_restore_a_verdict_is_about_the_grant_that_was_seen_or_refused(
    sqlite_url: str,
) -> None:
    engine = open_engine(sqlite_url)
    desk = Desk(Store(engine))
    campaign = desk.create()
    with (
        closing(sqlite3.connect(make_url(sqlite_url).database or "")) as database,
        closing(sqlite3.connect(":memory:")) as backup,
    ):
        database.backup(backup)
        desk.decide(campaign, 2, Outcome.REVOKED)
        later = desk.create(role="A")
        backup.backup(database)
    renew_epoch(engine)
    # Another history: the later campaign never was, a verdict is missing, a grant changes.
    changed = replace(GRANTS[0], role="B")
    write(desk.store, changed)
    again = desk.create(role="A")
    before = desk.revision()
    with pytest.raises(NotFound):
        desk.decide(later, 1, Outcome.REVOKED)
    with pytest.raises(RevisionChanged):
        desk.decide(campaign, 1, Outcome.REVOKED)
    assert (desk.grant("g1"), desk.revision()) == (changed, before)
    assert [item.verdict for item in desk.items(again)] == [None]
    assert desk.decide(campaign, 2).grant == GRANTS[1] == desk.grant("g2")
    engine.dispose()


def test_a_campaign_is_not_stored_if_the_database_was_restored_after_its_grants_were_read(
    desk: Desk,
) -> None:
    def restoring() -> float:
        renew_epoch(desk.store.engine)
        return NOW

    campaigns = Campaigns(desk.store, on_write=desk.written.append, clock=restoring)
    with pytest.raises(RevisionChanged):
        campaigns.create("Q4", "auditor", role="", organization_id="")
    assert desk.campaigns.list("", 10) == []
    desk.create()
