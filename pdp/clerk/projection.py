"""Makes the facts follow from what was seen of Clerk's account.

The facts are a function of the *set* of observations: of each object the greatest version stands
(`observations.version_of`), and whatever else is written follows from the versions that stand. So
duplicates, reorderings and a crash between two messages cannot matter.

Whatever an administrator wrote beside it stays: a user's own status, grants, policy. Clerk's word
on e-mail, name, attributes, memberships and existence wins.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import structlog

from pdp.clerk.observations import (
    Arrival,
    Difference,
    Drift,
    MembershipGone,
    Observation,
    OrganizationSeen,
    Seen,
    SessionEnded,
    UserSeen,
    standing_of,
)
from pdp.clerk.versions import ObjectKey, fold, kind_of, object_of, of_its_life
from pdp.document import derived_grant_id, same_entity
from pdp.facts import Transaction
from pdp.facts.store.clerk_objects import (
    ClerkKind,
    ClerkObject,
    ClerkStatus,
    mark_seen,
    read_memberships_of,
    read_objects,
    write_objects,
)
from pdp.facts.store.references import find_referrers
from pdp.model import (
    Entity,
    Grant,
    Membership,
    Organization,
    RevokedSession,
    Role,
    ToUser,
    User,
    key_of,
)

log = structlog.get_logger("pdp.clerk")

_Pair = tuple[str, str]


def mirror(
    transaction: Transaction,
    observations: Sequence[Observation],
    *,
    now: float,
    run: int = 0,
    default_role: str | None = None,
) -> list[Difference]:
    """Writes what follows from the observations, and returns what that changed.

    `now` is in Unix seconds; `run` is the sync that saw them, 0 for none. Raises BrokenReference,
    InvalidRequest and DatabaseUnavailable as a transaction does.
    """
    seen: list[Seen] = [one for one in observations if isinstance(one, Seen)]
    before = _known(transaction, {(kind_of(one), one.id) for one in seen})
    if run:
        seen = [of_its_life(one, before) for one in seen]
    state = dict(before)
    newest = fold(state, seen, repeats=bool(run))
    differences = [
        *_write_users(transaction, newest, before, default_role),
        *_write_organizations(transaction, newest),
        *_write_memberships(transaction, seen, state),
        *_catalogue_differences(state, before),
    ]
    for one in observations:
        if isinstance(one, MembershipGone):
            differences += _delete_unsaid(transaction, (one.organization_id, one.user_id))
        elif isinstance(one, SessionEnded) and transaction.revoke_session(
            RevokedSession(one.session_id, one.user_id, now)
        ):
            differences.append(Difference("session", one.session_id, Drift.MISSING))
    changed = [one for key, one in state.items() if one is not before.get(key)]
    write_objects(transaction, changed, before, run)
    if run:
        mark_met(transaction, observations, run)
    return differences


def mark_met(transaction: Transaction, observations: Iterable[Observation], run: int) -> None:
    """The sync `run` has met these objects."""
    for kind in ClerkKind:
        met = {one.id for one in observations if isinstance(one, Seen) and kind_of(one) is kind}
        if met:
            mark_seen(transaction, kind, met, run)


def admit(
    transaction: Transaction, arrival: Arrival, noticed_at: int, default_role: str | None
) -> None:
    """Writes what a valid token proves of somebody who is not known: the least version there is,
    which anything that Clerk says overrules. What Clerk has said already stays as it is. A session
    that was revoked proves who the user is, so that it can be refused as that, and nothing else.

    `noticed_at` is when the token was issued, in milliseconds.
    """
    user_id, organization_id = arrival.user_id, arrival.organization_id
    state = _known(transaction, {(ClerkKind.USER, user_id)})
    user = transaction.get(User, (user_id,))
    if user is None and state:
        return  # Clerk has spoken of this user: deleted, or removed here by an administrator
    said = state.get((ClerkKind.USER, user_id))
    if said is not None and said.status is not ClerkStatus.ACTIVE:
        return
    new: list[ClerkObject] = []
    if user is None:
        _create_users(transaction, [User(user_id)], default_role)
        new.append(object_of(UserSeen(id=user_id, updated_at=0, noticed_at=noticed_at)))
    revoked = transaction.is_revoked(user_id, arrival.session_id)
    if organization_id is not None and not revoked:
        new += _admit_organization(transaction, arrival, noticed_at)
    write_objects(transaction, new, {})


def _admit_organization(
    transaction: Transaction, arrival: Arrival, noticed_at: int
) -> list[ClerkObject]:
    organization_id, role = arrival.organization_id, arrival.organization_role
    assert organization_id is not None  # noqa: S101  # for the type checker
    said = _known(transaction, {(ClerkKind.ORGANIZATION, organization_id)})
    if any(one.status is ClerkStatus.DELETED for one in said.values()):
        return []
    new = []
    if transaction.get(Organization, (organization_id,)) is None:
        if said:
            return []  # removed here by an administrator
        transaction.insert(Organization(organization_id, slug=arrival.organization_slug))
        seen = OrganizationSeen(id=organization_id, updated_at=0, noticed_at=noticed_at)
        new.append(object_of(seen))
    pair = (organization_id, arrival.user_id)
    known = transaction.get(Membership, pair) or read_memberships_of(transaction, [pair])
    if role is not None and not known:
        transaction.insert(Membership(organization_id, arrival.user_id, role))
    return new


# --- facts ----------------------------------------------------------------------------------------


def _known(transaction: Transaction, keys: Iterable[ObjectKey]) -> dict[ObjectKey, ClerkObject]:
    wanted: dict[ClerkKind, set[str]] = {}
    for kind, id_ in keys:
        wanted.setdefault(kind, set()).add(id_)
    return {
        (kind, id_): one
        for kind, ids in wanted.items()
        for id_, one in read_objects(transaction, kind, ids).items()
    }


def _write_users(
    transaction: Transaction,
    newest: Mapping[ObjectKey, Seen],
    before: Mapping[ObjectKey, ClerkObject],
    default_role: str | None,
) -> list[Difference]:
    seen = {id_: one for (kind, id_), one in newest.items() if kind is ClerkKind.USER}
    stored = transaction.get_many(User, [(id_,) for id_ in seen])
    created, changed, deleted = [], [], []
    differences = []
    for id_, one in seen.items():
        user = stored.get((id_,))
        if isinstance(one, UserSeen):
            said = before.get((ClerkKind.USER, id_))
            moved = said is not None and said.status is not standing_of(one)
            now = replace(
                user or User(id_), email=one.email, name=one.name, attributes=one.attributes
            )
            if user is None:
                created.append(now)
                differences.append(Difference("user", id_, Drift.MISSING))
            elif not same_entity(user, now):
                changed.append(now)
                differences.append(Difference("user", id_, Drift.DIFFERENT))
            elif moved or (said is None and one.barred):
                differences.append(Difference("user", id_, Drift.DIFFERENT))
            continue
        # Also where there is no user: what came before them goes with them.
        differences += _delete(transaction, find_referrers(transaction, Membership, user_id=id_))
        _delete(transaction, find_referrers(transaction, Grant, user_id=id_))
        if user is not None:
            deleted.append(user)
    _create_users(transaction, created, default_role)
    transaction.apply_many(changed)
    return differences + _delete(transaction, deleted)


def _create_users(
    transaction: Transaction, users: Sequence[User], default_role: str | None
) -> None:
    transaction.apply_many(users)
    if default_role is None or not users:
        return
    if transaction.get(Role, (default_role,)) is None:
        log.error("default_role_unknown", role=default_role, users=[user.id for user in users])
        return
    grants = [Grant(id="", role=default_role, subject=ToUser(user.id)) for user in users]
    transaction.apply_many([replace(one, id=derived_grant_id(one)) for one in grants])


def _write_organizations(
    transaction: Transaction, newest: Mapping[ObjectKey, Seen]
) -> list[Difference]:
    seen = {id_: one for (kind, id_), one in newest.items() if kind is ClerkKind.ORGANIZATION}
    stored = transaction.get_many(Organization, [(id_,) for id_ in seen])
    written, deleted, differences = [], [], []
    for id_, one in seen.items():
        organization = stored.get((id_,))
        if isinstance(one, OrganizationSeen):
            now = Organization(id_, one.slug, one.name)
            if now != organization:
                written.append(now)
                drift = Drift.MISSING if organization is None else Drift.DIFFERENT
                differences.append(Difference("organization", id_, drift))
            continue
        # Its resources stay, out of reach: nobody can make it the active organization again.
        differences += _delete(
            transaction, find_referrers(transaction, Membership, organization_id=id_)
        )
        _delete(transaction, find_referrers(transaction, Grant, organization_id=id_))
        if organization is not None:
            deleted.append(organization)
    transaction.apply_many(written)
    return differences + _delete(transaction, deleted)


def _write_memberships(
    transaction: Transaction, seen: Sequence[Seen], state: dict[ObjectKey, ClerkObject]
) -> list[Difference]:
    touched = [state[kind_of(one), one.id] for one in seen]
    pairs = {pair for one in touched if (pair := _pair_of(one)) is not None}
    wanted = _standing_memberships(transaction, pairs, state)
    stored = transaction.get_many(Membership, pairs)
    written, deleted, differences = [], [], []
    for pair in sorted(pairs):
        now, before = wanted.get(pair), stored.get(pair)
        if now is None:
            deleted += [before] if before is not None else []
        elif now != before:
            written.append(now)
            drift = Drift.MISSING if before is None else Drift.DIFFERENT
            differences.append(Difference("membership", "/".join(pair), drift))
    transaction.apply_many(written)
    return differences + _delete(transaction, deleted)


def _standing_memberships(
    transaction: Transaction, pairs: set[_Pair], state: Mapping[ObjectKey, ClerkObject]
) -> dict[_Pair, Membership]:
    """Of all lives of each membership the newest decides: an older one whose end was not heard of
    yet has ended too. None outlives its user or organization."""
    objects = {one.id: one for one in read_memberships_of(transaction, pairs)}
    objects |= {id_: one for (kind, id_), one in state.items() if kind is ClerkKind.MEMBERSHIP}
    newest: dict[_Pair, ClerkObject] = {}
    for one in objects.values():
        pair = _pair_of(one)
        if pair in pairs and (
            pair not in newest or (newest[pair].version, newest[pair].id) < (one.version, one.id)
        ):
            newest[pair] = one
    owners = {(ClerkKind.ORGANIZATION, organization_id) for organization_id, _ in pairs}
    owners |= {(ClerkKind.USER, user_id) for _, user_id in pairs}
    gone = {
        key
        for key, one in {**_known(transaction, owners), **state}.items()
        if one.status is ClerkStatus.DELETED
    }
    return {
        (organization_id, user_id): Membership(organization_id, user_id, one.content["role"])
        for (organization_id, user_id), one in newest.items()
        if one.status is ClerkStatus.ACTIVE
        and (ClerkKind.ORGANIZATION, organization_id) not in gone
        and (ClerkKind.USER, user_id) not in gone
    }


def _pair_of(one: ClerkObject) -> _Pair | None:
    if one.kind is not ClerkKind.MEMBERSHIP or one.organization_id is None or one.user_id is None:
        return None
    return one.organization_id, one.user_id


def _catalogue_differences(
    state: Mapping[ObjectKey, ClerkObject], before: Mapping[ObjectKey, ClerkObject]
) -> list[Difference]:
    """Of organization roles and permissions, which the objects themselves hold."""
    differences = []
    for key, one in state.items():
        old = before.get(key)
        if one.kind not in (ClerkKind.ROLE, ClerkKind.PERMISSION) or one is old:
            continue
        if one.status is ClerkStatus.DELETED:
            if old is not None and old.status is not ClerkStatus.DELETED:
                differences.append(Difference(one.kind.value, one.id, Drift.EXTRA))
        elif old is None:
            differences.append(Difference(one.kind.value, one.id, Drift.MISSING))
        elif one.content != old.content:
            differences.append(Difference(one.kind.value, one.id, Drift.DIFFERENT))
    return differences


def _delete_unsaid(transaction: Transaction, pair: _Pair) -> list[Difference]:
    if read_memberships_of(transaction, [pair]):
        return []  # Clerk has spoken of it meanwhile
    return _delete(transaction, [Membership(*pair, role="")])


def _delete(transaction: Transaction, entities: Sequence[Entity]) -> list[Difference]:
    """Deletes entities of one kind."""
    if not entities:
        return []
    gone = transaction.delete_many(type(entities[0]), [key_of(one) for one in entities])
    return [
        Difference(type(one).__name__.lower(), "/".join(key_of(one)), Drift.EXTRA) for one in gone
    ]
