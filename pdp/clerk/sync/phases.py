"""The phases of a sync: what it reads from Clerk, page by page, and the observations.

First it reads the lists. Then it requests each stored object that was in no list by its id: an
object counts as deleted only if Clerk says that it does not exist. No more than a page is ever in
memory.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from pdp.clerk.api import ClerkApi, Page
from pdp.clerk.objects import (
    MalformedObject,
    Object,
    membership_seen,
    organization_seen,
    permission_seen,
    role_seen,
    user_seen,
)
from pdp.clerk.observations import DeletionSeen, MembershipGone, Observation, noticed_at_of
from pdp.clerk.sync.lease import Position
from pdp.clock import Clock
from pdp.facts import Store
from pdp.facts.store.clerk_objects import (
    ClerkKind,
    ClerkObject,
    ClerkStatus,
    read_objects,
    read_objects_not_seen,
    read_unreported_memberships,
)

log = structlog.get_logger("pdp.clerk")

CONFIRM_ITEMS = 100
"""How many objects are requested by id before the result is written."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a phase reads from. Call `renew` before each request. `began_at` is when the sync began,
    in milliseconds by `clock`."""

    api: ClerkApi
    store: Store
    clock: Clock
    run: int
    began_at: int
    renew: Callable[[], None]

    def now(self) -> int:
        """Milliseconds. Read before a request is sent, so the response is not older."""
        return int(self.clock() * 1000)


Seen = tuple[Sequence[Observation], Position]
"""The observations of a page, and the position of the next; an empty cursor ends the phase."""
Phase = Callable[[Sources, Position], Seen]
"""Reads one page. Raises ClerkError, DatabaseUnavailable and what `renew` raises."""
_Parse = Callable[[Object, int], Observation]


def _list(
    read: Callable[[ClerkApi, str], Page],
    parse: _Parse,
    count: Callable[[ClerkApi], int] | None = None,
) -> Phase:
    """A phase that lists all objects of a kind."""

    def phase(sources: Sources, position: Position) -> Seen:
        total = position.total
        if count is not None and total is None:
            sources.renew()
            total = count(sources.api)
        sources.renew()
        noticed_at = sources.now()
        page = read(sources.api, position.cursor)
        done = position.done + len(page.objects) if page.position is None else page.position
        after = replace(position, cursor=page.cursor, done=done, total=page.total or total)
        return _parsed(parse, page.objects, noticed_at), after

    return phase


def _missing(
    kind: ClerkKind, ask: Callable[[ClerkApi, str], Object | None], parse: _Parse
) -> Phase:
    """A phase that requests the stored objects of a kind that were in no list.

    An object that was reported after this sync began is left to the next one: a webhook may report
    it before the API knows it, and a deletion is permanent.
    """

    def phase(sources: Sources, position: Position) -> Seen:
        missing = _not_seen(sources, kind, position)
        seen: list[Observation] = []
        for stored in missing:
            sources.renew()
            noticed_at = sources.now()
            found = ask(sources.api, stored.id)
            if found is not None:
                seen += _parsed(parse, [found], noticed_at)
            elif noticed_at_of(stored.version) <= sources.began_at:
                seen.append(_gone(stored, noticed_at))
        return seen, _after(position, missing, missing[-1].id if missing else "")

    return phase


def _missing_memberships(sources: Sources, position: Position) -> Seen:
    missing = _not_seen(sources, ClerkKind.MEMBERSHIP, position)
    ended = _ended_owners(sources.store, missing)
    seen: list[Observation] = []
    for stored in missing:
        noticed_at = sources.now()
        if stored.organization_id is None or stored.user_id is None:
            continue  # owners unknown: it cannot be requested, and no fact follows from it
        if {stored.organization_id, stored.user_id} & ended:
            seen.append(_gone(stored, noticed_at))
            continue
        sources.renew()
        found = sources.api.membership(stored.organization_id, stored.user_id)
        if found is None or found.get("id") != stored.id:
            seen.append(_gone(stored, noticed_at))
        if found is not None:
            seen += _parsed(membership_seen, [found], noticed_at)
    return seen, _after(position, missing, missing[-1].id if missing else "")


def _unsaid_memberships(sources: Sources, position: Position) -> Seen:
    """Requests the stored memberships that Clerk never reported, e.g. those from a token."""
    organization_id, user_id = json.loads(position.cursor or '["", ""]')
    with sources.store.read() as reader:
        unsaid = read_unreported_memberships(reader, (organization_id, user_id), CONFIRM_ITEMS)
    seen: list[Observation] = []
    for organization_id, user_id in unsaid:
        sources.renew()
        noticed_at = sources.now()
        found = sources.api.membership(organization_id, user_id)
        if found is None:
            seen.append(MembershipGone(organization_id=organization_id, user_id=user_id))
        else:
            seen += _parsed(membership_seen, [found], noticed_at)
    return seen, _after(position, unsaid, json.dumps(unsaid[-1]) if unsaid else "")


PHASES: Mapping[str, Phase] = {
    "permissions": _list(ClerkApi.permissions, permission_seen),
    "roles": _list(ClerkApi.roles, role_seen),
    "organizations": _list(ClerkApi.organizations, organization_seen),
    "users": _list(ClerkApi.users, user_seen, ClerkApi.count_users),
    "memberships": _list(ClerkApi.memberships, membership_seen),
    "missing permissions": _missing(ClerkKind.PERMISSION, ClerkApi.permission, permission_seen),
    "missing roles": _missing(ClerkKind.ROLE, ClerkApi.role, role_seen),
    "missing organizations": _missing(
        ClerkKind.ORGANIZATION, ClerkApi.organization, organization_seen
    ),
    "missing users": _missing(ClerkKind.USER, ClerkApi.user, user_seen),
    "missing memberships": _missing_memberships,
    "unsaid memberships": _unsaid_memberships,
}
"""In this order. Users and organizations come before memberships, which need them. Missing objects
are requested when all lists are read. The names are stored in the database: do not change them."""


def _not_seen(sources: Sources, kind: ClerkKind, position: Position) -> Sequence[ClerkObject]:
    with sources.store.read() as reader:
        return read_objects_not_seen(reader, kind, sources.run, position.cursor, CONFIRM_ITEMS)


def _after(position: Position, read: Sequence[object], cursor: str) -> Position:
    next_cursor = cursor if len(read) == CONFIRM_ITEMS else ""
    return replace(position, cursor=next_cursor, done=position.done + len(read))


def _gone(stored: ClerkObject, noticed_at: int) -> DeletionSeen:
    return DeletionSeen(
        kind=stored.kind,
        id=stored.id,
        updated_at=0,
        noticed_at=noticed_at,
        organization_id=stored.organization_id,
        user_id=stored.user_id,
    )


def _ended_owners(store: Store, memberships: Iterable[ClerkObject]) -> set[str]:
    """The users and organizations of memberships that Clerk has deleted, and their memberships with
    them."""
    organizations = {
        membership.organization_id
        for membership in memberships
        if membership.organization_id is not None
    }
    users = {membership.user_id for membership in memberships if membership.user_id is not None}
    with store.read() as reader:
        owners = {
            **read_objects(reader, ClerkKind.ORGANIZATION, organizations),
            **read_objects(reader, ClerkKind.USER, users),
        }
    return {id_ for id_, owner in owners.items() if owner.status is ClerkStatus.DELETED}


def _parsed(parse: _Parse, objects: Iterable[Object], noticed_at: int) -> list[Observation]:
    """The observations of objects. A malformed object is skipped: the stored one stays."""
    seen = []
    for object_ in objects:
        try:
            seen.append(parse(object_, noticed_at))
        except MalformedObject as error:
            log.warning(
                "clerk_object_malformed",
                object=object_.get("object"),
                id=object_.get("id"),
                field=str(error),
            )
    return seen
