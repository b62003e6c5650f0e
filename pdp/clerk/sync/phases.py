"""What a sync reads, step by step and page by page, and what it sees there.

First the lists. What stands here and was in none of them is then asked for by its id: only what
Clerk says is not there counts as deleted. No more than a page is ever in memory.
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
from pdp.clerk.sync.lease import Place
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
"""How many objects that were in no list are asked for before what came of it is written."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a sync reads. `hold` is to be called before each request; `began_at` is in
    milliseconds, by `clock`."""

    api: ClerkApi
    store: Store
    clock: Clock
    run: int
    began_at: int
    hold: Callable[[], None]

    def now(self) -> int:
        """In milliseconds. Asked before a request is sent: the answer is not older."""
        return int(self.clock() * 1000)


Seen = tuple[Sequence[Observation], Place]
"""What a page showed, and where the next begins: with an empty cursor, there is none."""
Step = Callable[[Sources, Place], Seen]
"""Raises ClerkError, DatabaseUnavailable and whatever `hold` raises."""
_Parse = Callable[[Object, int], Observation]


def _list(
    read: Callable[[ClerkApi, str], Page],
    parse: _Parse,
    count: Callable[[ClerkApi], int] | None = None,
) -> Step:
    """All objects of a kind."""

    def step(sources: Sources, place: Place) -> Seen:
        total = place.total
        if count is not None and total is None:
            sources.hold()
            total = count(sources.api)
        sources.hold()
        noticed_at = sources.now()
        page = read(sources.api, place.cursor)
        done = place.done + len(page.objects) if page.position is None else page.position
        after = replace(place, cursor=page.cursor, done=done, total=page.total or total)
        return _parsed(parse, page.objects, noticed_at), after

    return step


def _missing(kind: ClerkKind, ask: Callable[[ClerkApi, str], Object | None], parse: _Parse) -> Step:
    """The objects of a kind that stand here and were in no list.

    Of what was heard of only since this sync began, the next one judges: Clerk may tell of it in a
    message before its API knows it, and a deletion is forever.
    """

    def step(sources: Sources, place: Place) -> Seen:
        missing = _not_seen(sources, kind, place)
        seen: list[Observation] = []
        for one in missing:
            sources.hold()
            noticed_at = sources.now()
            found = ask(sources.api, one.id)
            if found is not None:
                seen += _parsed(parse, [found], noticed_at)
            elif noticed_at_of(one.version) <= sources.began_at:
                seen.append(_gone(one, noticed_at))
        return seen, _behind(place, missing, missing[-1].id if missing else "")

    return step


def _missing_memberships(sources: Sources, place: Place) -> Seen:
    missing = _not_seen(sources, ClerkKind.MEMBERSHIP, place)
    ended = _ended_owners(sources.store, missing)
    seen: list[Observation] = []
    for one in missing:
        noticed_at = sources.now()
        if one.organization_id is None or one.user_id is None:
            continue  # never told whose it is: it cannot be asked for, and nothing follows from it
        if {one.organization_id, one.user_id} & ended:
            seen.append(_gone(one, noticed_at))
            continue
        sources.hold()
        found = sources.api.membership(one.organization_id, one.user_id)
        if found is None or found.get("id") != one.id:
            seen.append(_gone(one, noticed_at))
        if found is not None:
            seen += _parsed(membership_seen, [found], noticed_at)
    return seen, _behind(place, missing, missing[-1].id if missing else "")


def _unsaid_memberships(sources: Sources, place: Place) -> Seen:
    """Those that stand here though Clerk has never spoken of them: a token proved them, perhaps."""
    organization_id, user_id = json.loads(place.cursor or '["", ""]')
    with sources.store.read() as reader:
        unsaid = read_unreported_memberships(reader, (organization_id, user_id), CONFIRM_ITEMS)
    seen: list[Observation] = []
    for organization_id, user_id in unsaid:
        sources.hold()
        noticed_at = sources.now()
        found = sources.api.membership(organization_id, user_id)
        if found is None:
            seen.append(MembershipGone(organization_id=organization_id, user_id=user_id))
        else:
            seen += _parsed(membership_seen, [found], noticed_at)
    return seen, _behind(place, unsaid, json.dumps(unsaid[-1]) if unsaid else "")


STEPS: Mapping[str, Step] = {
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
"""In this order: what decisions need least is read first, so that a membership finds its user and
organization, and what is not in the lists is judged when all of them are read."""


def _not_seen(sources: Sources, kind: ClerkKind, place: Place) -> Sequence[ClerkObject]:
    with sources.store.read() as reader:
        return read_objects_not_seen(reader, kind, sources.run, place.cursor, CONFIRM_ITEMS)


def _behind(place: Place, read: Sequence[object], cursor: str) -> Place:
    following = cursor if len(read) == CONFIRM_ITEMS else ""
    return replace(place, cursor=following, done=place.done + len(read))


def _gone(one: ClerkObject, noticed_at: int) -> DeletionSeen:
    return DeletionSeen(
        kind=one.kind,
        id=one.id,
        updated_at=0,
        noticed_at=noticed_at,
        organization_id=one.organization_id,
        user_id=one.user_id,
    )


def _ended_owners(store: Store, memberships: Iterable[ClerkObject]) -> set[str]:
    """Those of their users and organizations that Clerk has deleted, and the memberships with
    them."""
    organizations = {one.organization_id for one in memberships if one.organization_id is not None}
    users = {one.user_id for one in memberships if one.user_id is not None}
    with store.read() as reader:
        owners = {
            **read_objects(reader, ClerkKind.ORGANIZATION, organizations),
            **read_objects(reader, ClerkKind.USER, users),
        }
    return {id_ for id_, one in owners.items() if one.status is ClerkStatus.DELETED}


def _parsed(parse: _Parse, objects: Iterable[Object], noticed_at: int) -> list[Observation]:
    """What the objects show. One that cannot be read costs itself alone: it stays as it is here."""
    seen = []
    for one in objects:
        try:
            seen.append(parse(one, noticed_at))
        except MalformedObject as error:
            log.warning(
                "clerk_object_malformed",
                object=one.get("object"),
                id=one.get("id"),
                field=str(error),
            )
    return seen
