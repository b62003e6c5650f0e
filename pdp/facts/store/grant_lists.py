"""Lists of grants for access reviews, in pages by key.

A page reads a bounded number of rows. So it may be short or empty although there are more:
`GrantPage.after` is where the list continues.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Subquery, and_, exists, or_, select

from pdp.facts.store import tables
from pdp.facts.store.clerk_objects import ClerkKind, ClerkStatus
from pdp.facts.store.reader import Reader
from pdp.facts.store.rows import grant_from_row
from pdp.model import Grant, UserStatus

SCAN_ROWS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class GrantPage:
    """Some grants, in the order of the list."""

    grants: Sequence[Grant]
    after: tuple[str, ...] | None
    """The key of the last row that was read; None: the list is complete."""


def ending_grants(
    reader: Reader, since: float, until: float, after: Sequence[str], limit: int
) -> GrantPage:
    """Lists the grants that end at or after `since` and before `until`, by their end.

    Args:
        reader: The open transaction.
        since: Seconds since 1970-01-01 UTC.
        until: Seconds since 1970-01-01 UTC.
        after: `GrantPage.after` of the page before; empty: the first page.
        limit: The largest number of grants.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    ends, id_ = tables.grants.c.expires_at, tables.grants.c.id
    query = select(tables.grants).where(ends.is_not(None), ends >= since, ends < until)
    if after:
        last = float(after[0])
        # Without a comparison of rows, whose types PostgreSQL could not tell.
        query = query.where(or_(ends > last, and_(ends == last, id_ > after[1])))
    rows = reader.connection.execute(query.order_by(ends, id_).limit(limit)).mappings()
    grants = [grant_from_row(row) for row in rows]
    return GrantPage(grants, ending_key(grants[-1]) if len(grants) == limit else None)


def ending_key(grant: Grant) -> tuple[str, str]:
    """Returns the key of a grant in `ending_grants`."""
    return repr(grant.expires_at), grant.id


def cross_tenant_grants(reader: Reader, after: Sequence[str], limit: int) -> GrantPage:
    """Lists the grants to users that reach beyond their memberships, by id: everywhere, in an
    organization of which the user is no member, or on a stored resource of such an organization.

    Args and Raises: As `ending_grants`.
    """
    scanned = _next_grants(after)
    grants, resources, memberships = scanned.c, tables.resources.c, tables.memberships.c

    def member_of(organization_id: ColumnElement[str]) -> ColumnElement[bool]:
        own = exists().where(
            memberships.organization_id == organization_id, memberships.user_id == grants.user_id
        )
        # Explicit: inside another EXISTS, only the tables of that one would be correlated.
        return own.correlate(scanned, tables.resources)

    everywhere = and_(grants.organization_id.is_(None), grants.resource_type.is_(None))
    outside = and_(grants.organization_id.is_not(None), ~member_of(grants.organization_id))
    elsewhere = exists().where(
        resources.type == grants.resource_type,
        resources.id == grants.resource_id,
        resources.organization_id.is_not(None),
        ~member_of(resources.organization_id),
    )
    condition = grants.user_id.is_not(None) & or_(everywhere, outside, elsewhere)
    return _scan(reader, scanned, condition, limit)


def grants_of_disabled_users(reader: Reader, after: Sequence[str], limit: int) -> GrantPage:
    """Lists the grants of users that an administrator has disabled, or that Clerk bars or has
    deleted, by id.

    Args and Raises: As `ending_grants`.
    """
    scanned = _next_grants(after)
    users, objects = tables.users.c, tables.clerk_objects.c
    disabled = exists().where(
        users.id == scanned.c.user_id, users.status == UserStatus.DISABLED.value
    )
    barred = exists().where(
        objects.kind == ClerkKind.USER.value,
        objects.id == scanned.c.user_id,
        objects.standing != ClerkStatus.ACTIVE.value,
    )
    return _scan(reader, scanned, or_(disabled, barred), limit)


def _next_grants(after: Sequence[str]) -> Subquery:
    """The next SCAN_ROWS_MAX grants by id."""
    grants = tables.grants
    query = select(grants).order_by(grants.c.id).limit(SCAN_ROWS_MAX)
    if after:
        query = query.where(grants.c.id > after[0])
    return query.subquery("scanned")


def _scan(
    reader: Reader, scanned: Subquery, condition: ColumnElement[bool], limit: int
) -> GrantPage:
    query = select(scanned).where(condition).order_by(scanned.c.id).limit(limit)
    rows = reader.connection.execute(query).mappings()
    grants = [grant_from_row(row) for row in rows]
    if len(grants) == limit:
        return GrantPage(grants, (grants[-1].id,))
    ids = select(scanned.c.id).order_by(scanned.c.id).offset(SCAN_ROWS_MAX - 1).limit(1)
    last = reader.connection.execute(ids).scalar_one_or_none()
    return GrantPage(grants, None if last is None else (last,))
