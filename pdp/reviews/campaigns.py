"""Campaigns: lists of grants, frozen at a revision, of which reviewers certify or revoke each.

A verdict is about the grant as it was frozen. If the grant has changed since, or is gone, neither
verdict is accepted: the reviewer has not seen what holds now. Nobody decides about a grant to
themselves.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, func, insert, select

from pdp import names
from pdp.administration_records import Author, Source
from pdp.audit import new_decision_id
from pdp.clock import Clock
from pdp.database.bulk import batches
from pdp.errors import (
    AlreadyExists,
    CallerNotAllowed,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    RevisionChanged,
    Violation,
)
from pdp.facts import Reader, Store
from pdp.facts.store.rows import grant_from_row, to_row
from pdp.limits import NAME_CHARACTERS_MAX
from pdp.model import Grant, InOrganization, ToUser
from pdp.reviews.tables import review_campaigns, review_items, review_verdicts

ITEMS_MAX: Final = 10_000
CAMPAIGNS_PER_DAY_MAX: Final = 100
CONSOLE_REVIEWER: Final = "console:"
"""How the name of a reviewer begins who is a user of the console. No caller has a colon in its
name."""
_BATCH_ROWS: Final = 1_000
_DAY_SECONDS: Final = 86_400.0


class Outcome(Enum):
    """What a reviewer decides about a grant."""

    CERTIFIED = "certified"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Campaign:
    """A frozen list of grants."""

    id: str
    name: str
    created_by: str
    created_at: float
    """Seconds since 1970-01-01 UTC."""
    revision: int
    """The revision at which the grants were read."""
    items: int
    """The number of grants."""
    decided: int = 0
    """How many of them have a verdict."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reviewer's decision about one grant."""

    outcome: Outcome
    reviewer: str
    """The name of the caller."""
    reason: str
    decided_at: float
    """Seconds since 1970-01-01 UTC."""
    revision: int
    """The revision of the verdict: of a revocation, that of the deletion."""


@dataclass(frozen=True, slots=True)
class CampaignItem:
    """One grant of a campaign."""

    number: int
    """From 1."""
    grant: Grant
    """As it was frozen."""
    verdict: Verdict | None
    now: Grant | None
    """The grant with the same id now; None: there is none."""

    @property
    def state(self) -> str:
        """`unchanged`, `changed` or `gone`."""
        if self.now is None:
            return "gone"
        return "unchanged" if self.now == self.grant else "changed"

    def is_to(self, reviewer: str) -> bool:
        """Whether the grant is to the user whose id is the reviewer's name."""
        return _is_to(self.grant, reviewer)


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Some items, by number."""

    campaign: Campaign
    items: Sequence[CampaignItem]
    after: int | None
    """The number of the last item; None: the list is complete."""


class Campaigns:
    """Creates, lists and decides campaigns. Every method raises DatabaseUnavailable."""

    def __init__(self, store: Store, *, on_write: Callable[[int], None], clock: Clock) -> None:
        """Creates the room's access to campaigns.

        Args:
            store: The database.
            on_write: Called with the revision of each revocation.
            clock: The time of campaigns and verdicts.
        """
        self._store = store
        self._on_write = on_write
        self._clock = clock

    def create(self, name: str, creator: str, *, role: str, organization_id: str) -> Campaign:
        """Freezes the grants that are stored now.

        Args:
            name: A name for people.
            creator: The name of the caller.
            role: Only grants of this role; empty: of all roles.
            organization_id: Only grants within this organization; empty: all.

        Raises:
            InvalidRequest: A text is not valid.
            LimitExceeded: The name is too long; or there are over ITEMS_MAX such grants, or
                CAMPAIGNS_PER_DAY_MAX campaigns of the last day.
            NotFound: There is no such grant.
            RevisionChanged: The database began a new epoch meanwhile, as after a restore.
        """
        wrong = _check_prose(name, "name")
        if role:
            wrong = wrong or names.check_role(role, "role")
        if organization_id:
            wrong = wrong or names.check_identifier(organization_id, "organization_id")
        _refuse(wrong)
        if len(name) > NAME_CHARACTERS_MAX:
            raise LimitExceeded("name_characters_max", NAME_CHARACTERS_MAX, len(name))
        with self._store.read() as reader:
            grants = _selected(reader, role, organization_id)
            epoch, revision = reader.epoch, reader.revision
        if not grants:
            raise NotFound("grant", " ".join(filter(None, (role, organization_id))))
        campaign = Campaign(new_decision_id(), name, creator, self._clock(), revision, len(grants))
        with self._store.write() as transaction:
            if transaction.epoch != epoch:  # what was read is not of this history
                raise RevisionChanged(revision, transaction.revision)
            recent = _created_since(transaction.connection, campaign.created_at - _DAY_SECONDS)
            if recent >= CAMPAIGNS_PER_DAY_MAX:
                limit = CAMPAIGNS_PER_DAY_MAX
                raise LimitExceeded("review_campaigns_per_day_max", limit, recent + 1)
            transaction.connection.execute(
                insert(review_campaigns).values(
                    id=campaign.id,
                    name=name,
                    created_by=creator,
                    created_at=campaign.created_at,
                    revision=revision,
                    items=len(grants),
                )
            )
            rows = iter(
                {
                    "campaign_id": campaign.id,
                    "number": number,
                    "grant_id": grant.id,
                    "content": json.dumps(to_row(grant), sort_keys=True),
                }
                for number, grant in enumerate(grants, 1)
            )
            for batch in batches(rows, _BATCH_ROWS):
                transaction.connection.execute(insert(review_items), batch)
            transaction.mark_written()
        return campaign

    def list(self, after: str, limit: int) -> "list[Campaign]":  # quoted: `list` is this method
        """Lists up to `limit` campaigns, newest first, after the id `after` (empty: all)."""
        column = review_campaigns.c
        statement = select(review_campaigns).order_by(column.id.desc()).limit(limit)
        if after:
            statement = statement.where(column.id < after)
        with self._store.read() as reader:
            connection = reader.connection
            rows = connection.execute(statement).mappings().all()
            return [_with_decided(connection, row) for row in rows]

    def items(self, campaign_id: str, after: int, limit: int) -> ItemPage:
        """Lists up to `limit` items after the number `after`, with what is stored now. Raises
        NotFound, and InvalidRequest if this is no id."""
        _refuse(names.check_identifier(campaign_id, "campaign_id"))
        item, verdict = review_items.c, review_verdicts.c
        same = (verdict.campaign_id == item.campaign_id) & (verdict.number == item.number)
        statement = (
            select(
                item.number,
                item.content,
                *(verdict.verdict, verdict.reviewer, verdict.reason),
                *(verdict.decided_at, verdict.revision),
            )
            .select_from(review_items.outerjoin(review_verdicts, same))
            .where(item.campaign_id == campaign_id, item.number > after)
            .order_by(item.number)
            .limit(limit)
        )
        with self._store.read() as reader:
            campaign = _campaign(reader.connection, campaign_id)
            rows = reader.connection.execute(statement).all()
            frozen = [_grant(row.content) for row in rows]
            now = reader.get_many(Grant, [(grant.id,) for grant in frozen])
        items = [
            CampaignItem(
                row.number,
                grant,
                None if row.verdict is None else Verdict(Outcome(row.verdict), *row[3:]),
                now.get((grant.id,)),
            )
            for row, grant in zip(rows, frozen, strict=True)
        ]
        complete = not items or items[-1].number == campaign.items
        return ItemPage(campaign, items, None if complete else items[-1].number)

    def decide(
        self, campaign_id: str, number: int, outcome: Outcome, reviewer: str, reason: str
    ) -> CampaignItem:
        """Stores a verdict; a revocation deletes the grant in the same transaction.

        Args:
            campaign_id: The campaign.
            number: The number of the item.
            outcome: The verdict.
            reviewer: The name of the caller.
            reason: Why, for people.

        Raises:
            InvalidRequest: A text is not valid.
            NotFound: There is no such item.
            CallerNotAllowed: The grant is to the reviewer.
            AlreadyExists: The item has a verdict.
            RevisionChanged: The grant is not as it was frozen.
        """
        wrong = names.check_identifier(campaign_id, "campaign_id")
        _refuse(wrong or _check_prose(reason, "reason"))
        item = review_items.c
        of_item = select(item.content).where(item.campaign_id == campaign_id, item.number == number)
        # Raising the revision locks out other writers until the verdict is committed.
        with self._store.write(Author(Source.API, reviewer, reason)) as transaction:
            connection = transaction.connection
            campaign = _campaign(connection, campaign_id)
            content = connection.execute(of_item).scalar_one_or_none()
            if content is None:
                raise NotFound("campaign_item", f"{campaign_id}/{number}")
            frozen = _grant(content)
            if _is_to(frozen, reviewer):
                raise CallerNotAllowed("the grant is to you: another reviewer has to decide")
            if _has_verdict(connection, campaign_id, number):
                raise AlreadyExists("verdict", f"{campaign_id}/{number}")
            now = transaction.get(Grant, (frozen.id,))
            if now != frozen:
                raise RevisionChanged(campaign.revision, transaction.revision)
            if outcome is Outcome.REVOKED:
                transaction.delete(Grant, (frozen.id,))
                now = None
            verdict = Verdict(outcome, reviewer, reason, self._clock(), transaction.revision)
            connection.execute(
                insert(review_verdicts).values(
                    campaign_id=campaign_id,
                    number=number,
                    verdict=outcome.value,
                    reviewer=reviewer,
                    reason=reason,
                    decided_at=verdict.decided_at,
                    revision=verdict.revision,
                )
            )
            transaction.mark_written()
        if outcome is Outcome.REVOKED:
            self._on_write(verdict.revision)
        return CampaignItem(number, frozen, verdict, now)


def _is_to(grant: Grant, reviewer: str) -> bool:
    return grant.subject == ToUser(reviewer.removeprefix(CONSOLE_REVIEWER))


def _check_prose(text: str, field: str) -> Violation | None:
    if not text.strip():
        return Violation(field, "must not be empty")
    return names.check_description(text, field)


def _refuse(wrong: Violation | None) -> None:
    if wrong is not None:
        raise InvalidRequest(wrong)


def _selected(reader: Reader, role: str, organization_id: str) -> Sequence[Grant]:
    """Returns the grants to freeze, by id. Raises LimitExceeded."""
    found: list[Grant] = []
    after = None
    while page := reader.list(Grant, after, _BATCH_ROWS):
        after = (page[-1].id,)
        found += (
            grant
            for grant in page
            if role in ("", grant.role)
            and (not organization_id or grant.scope == InOrganization(organization_id))
        )
        if len(found) > ITEMS_MAX:
            raise LimitExceeded("review_items_max", ITEMS_MAX, len(found))
    return found


def _grant(content: str) -> Grant:
    row: dict[str, Any] = json.loads(content)
    return grant_from_row(row)


def _campaign(connection: Connection, campaign_id: str) -> Campaign:
    statement = select(review_campaigns).where(review_campaigns.c.id == campaign_id)
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise NotFound("campaign", campaign_id)
    return _with_decided(connection, row)


def _with_decided(connection: Connection, row: RowMapping) -> Campaign:
    """Converts a row of `review_campaigns`."""
    verdicts = select(func.count()).where(review_verdicts.c.campaign_id == row["id"])
    return Campaign(**row, decided=connection.execute(verdicts).scalar_one())


def _has_verdict(connection: Connection, campaign_id: str, number: int) -> bool:
    verdict = review_verdicts.c
    own = select(verdict.number).where(verdict.campaign_id == campaign_id, verdict.number == number)
    return connection.execute(own).first() is not None


def _created_since(connection: Connection, since: float) -> int:
    column = review_campaigns.c
    # Ids sort by time, so that the newest are found by key.
    newest = select(column.created_at).order_by(column.id.desc()).limit(CAMPAIGNS_PER_DAY_MAX)
    return sum(created_at > since for created_at in connection.execute(newest).scalars())
