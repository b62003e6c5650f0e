"""The search of one organization: its pages and their cursors depend on nothing of others."""

from collections.abc import Sequence
from random import Random

import pytest
from sqlalchemy import Engine

from pdp.audit import DecisionFilter, DecisionLog, DecisionRecord, queries
from pdp.console import tenant
from pdp.console.tenant import decisions_of, search_decisions
from pdp.model import Actor, ResourceRef
from tests.kit import soak
from tests.kit.reviews.logs import NOW, record_at, store_records

OWN, OTHER = "org_own", "org_other"
SEARCHES = soak.count(1_000, sample=12)


def random_records(random: Random) -> list[DecisionRecord]:
    """Of both organizations: queries, and questions about resources of both, within minutes."""
    found = []
    for number in range(120):
        organization = random.choice((OWN, OTHER, OTHER, None))
        found.append(
            record_at(
                NOW + random.randrange(600),
                number,
                actor=Actor(random.choice(("user_1", "user_2")), "sess", organization),
                resource=ResourceRef("invoice", random.choice("12")),
                resource_organization_id=random.choice((OWN, OTHER)),
                query=random.choice((None, None, "ListAllowedResources")),
                reported_by=random.choice((None, None, "edge")),
            )
        )
    return found


def pages(log: DecisionLog, where: DecisionFilter) -> tuple[list[DecisionRecord], list[str]]:
    """All that is shown, and the cursors."""
    found: dict[str, DecisionRecord] = {}
    cursors: list[str] = []
    after: str | None = None
    while True:
        page = search_decisions(log, where, OWN, after, 3)
        found |= {log.key(record): record for record in page.decisions}
        if page.after is None:
            return list(found.values()), cursors
        assert after is None or page.after < after, "the search goes on"
        after = page.after
        cursors.append(after)


def expected(where: DecisionFilter, records: Sequence[DecisionRecord]) -> list[DecisionRecord]:
    shown = [
        record
        for record in decisions_of(records, OWN)
        if record.actor is not None
        and record.resource is not None
        and where.user_id in (None, record.actor.user_id)
        and where.resource_id in (None, record.resource.id)
    ]
    return sorted(shown, key=lambda record: record.decision_id, reverse=True)


@pytest.mark.soak
def test_pages_hold_what_is_shown_and_cursors_name_only_that(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(5)
    log = DecisionLog(engine)
    named = positions = unlike = 0
    for number in range(SEARCHES):
        records = random_records(random)
        monkeypatch.setattr(queries, "STEP_ROWS", random.choice((2, 5, 1_000)))
        monkeypatch.setattr(queries, "STEPS_MAX", random.choice((1, 2)))
        monkeypatch.setattr(tenant, "_LOOK_ROWS", random.choice((2, 100)))
        where = DecisionFilter(
            user_id=random.choice((None, "user_1")), resource_id=random.choice((None, "1"))
        )
        store_records(engine, records)
        found, cursors = pages(log, where)
        wanted = expected(where, records)
        assert found == wanted, f"search {number}"
        shown = {log.key(record) for record in wanted}
        hidden = {log.key(record) for record in records} - shown
        plain = DecisionFilter(user_id=where.user_id, organization_id=OWN)
        unlike += log.list(plain, None, 3).after in hidden
        assert hidden.isdisjoint(cursors), f"search {number}"
        named += len(shown.intersection(cursors))
        positions += len(set(cursors) - shown)
        # The same log without anything of others leads to the same pages.
        own = [record for record in records if record.actor and record.actor.organization_id == OWN]
        store_records(engine, own)
        assert pages(log, where) == (found, cursors), f"search {number}"
    assert min(named, positions) > SEARCHES / 4
    assert unlike > SEARCHES / 10, "the control: the search of the installation does name them"
