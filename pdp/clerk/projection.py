"""Derives the facts from observations of a Clerk account.

The facts are a function of the *set* of observations: of each object the greatest version wins
(`observations.version_of`), and all facts follow from these versions. So duplicates, reordering and
a crash between two messages cannot matter.

Data that an administrator wrote stays: a user's status, grants, policy. Clerk is authoritative for
e-mail, name, attributes, memberships and existence.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import structlog

from pdp.clerk.observations import (
    Difference,
    Drift,
    MembershipGone,
    Observation,
    OrganizationSeen,
    Seen,
    SessionEnded,
    TokenIdentity,
    UserSeen,
    status_of,
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


def project(
    transaction: Transaction,
    observations: Sequence[Observation],
    *,
    now: float,
    run: int = 0,
    default_role: str | None = None,
) -> list[Difference]:
    """Writes the facts that follow from observations.

    Args:
        transaction: The open transaction.
        observations: In any order.
        now: Unix seconds.
        run: The sync that made the observations; 0 for none.
        default_role: A role granted everywhere to each new user.

    Returns:
        What changed.

    Raises:
        BrokenReference: As a transaction does.
        InvalidRequest: As a transaction does.
        DatabaseUnavailable: As a transaction does.
    """
    seen: list[Seen] = [
        observation for observation in observations if isinstance(observation, Seen)
    ]
    before = _known(transaction, {(kind_of(observation), observation.id) for observation in seen})
    if run:
        seen = [of_its_life(observation, before) for observation in seen]
    state = dict(before)
    newest = fold(state, seen, repeats=bool(run))
    differences = [
        *_write_users(transaction, newest, before, default_role),
        *_write_organizations(transaction, newest),
        *_write_memberships(transaction, seen, state),
        *_catalogue_differences(state, before),
    ]
    for observation in observations:
        if isinstance(observation, MembershipGone):
            differences += _delete_unreported(
                transaction, (observation.organization_id, observation.user_id)
            )
        elif isinstance(observation, SessionEnded) and transaction.revoke_session(
            RevokedSession(observation.session_id, observation.user_id, now)
        ):
            differences.append(Difference("session", observation.session_id, Drift.MISSING))
    changed = [new for key, new in state.items() if new is not before.get(key)]
    write_objects(transaction, changed, before, run)
    if run:
        mark_observed(transaction, observations, run)
    return differences


def mark_observed(transaction: Transaction, observations: Iterable[Observation], run: int) -> None:
    """Marks the observed objects as seen by the sync `run`."""
    for kind in ClerkKind:
        seen = {
            observation.id
            for observation in observations
            if isinstance(observation, Seen) and kind_of(observation) is kind
        }
        if seen:
            mark_seen(transaction, kind, seen, run)


def admit(
    transaction: Transaction, identity: TokenIdentity, noticed_at: int, default_role: str | None
) -> None:
    """Creates the user, organization and membership of a verified token, unless they are known.

    They get the lowest version, which every report of Clerk overrides; what Clerk has reported
    already is not changed. A revoked session creates the user only, so that the request is refused
    with SESSION_REVOKED.

    `noticed_at` is when the token was issued, in milliseconds.
    """
    user_id, organization_id = identity.user_id, identity.organization_id
    state = _known(transaction, {(ClerkKind.USER, user_id)})
    user = transaction.get(User, (user_id,))
    if user is None and state:
        return  # reported by Clerk before: deleted there, or here by an administrator
    known = state.get((ClerkKind.USER, user_id))
    if known is not None and known.status is not ClerkStatus.ACTIVE:
        return
    new: list[ClerkObject] = []
    if user is None:
        _create_users(transaction, [User(user_id)], default_role)
        new.append(object_of(UserSeen(id=user_id, updated_at=0, noticed_at=noticed_at)))
    revoked = transaction.is_revoked(user_id, identity.session_id)
    if organization_id is not None and not revoked:
        new += _admit_organization(transaction, identity, noticed_at)
    write_objects(transaction, new, {})


def _admit_organization(
    transaction: Transaction, identity: TokenIdentity, noticed_at: int
) -> list[ClerkObject]:
    organization_id, role = identity.organization_id, identity.organization_role
    assert organization_id is not None  # noqa: S101  # for the type checker
    known = _known(transaction, {(ClerkKind.ORGANIZATION, organization_id)})
    if any(found.status is ClerkStatus.DELETED for found in known.values()):
        return []
    new = []
    if transaction.get(Organization, (organization_id,)) is None:
        if known:
            return []  # removed here by an administrator
        transaction.insert(Organization(organization_id, slug=identity.organization_slug))
        seen = OrganizationSeen(id=organization_id, updated_at=0, noticed_at=noticed_at)
        new.append(object_of(seen))
    pair = (organization_id, identity.user_id)
    stored = transaction.get(Membership, pair) or read_memberships_of(transaction, [pair])
    if role is not None and not stored:
        transaction.insert(Membership(organization_id, identity.user_id, role))
    return new


# --- facts ----------------------------------------------------------------------------------------


def _known(transaction: Transaction, keys: Iterable[ObjectKey]) -> dict[ObjectKey, ClerkObject]:
    wanted: dict[ClerkKind, set[str]] = {}
    for kind, id_ in keys:
        wanted.setdefault(kind, set()).add(id_)
    return {
        (kind, id_): found
        for kind, ids in wanted.items()
        for id_, found in read_objects(transaction, kind, ids).items()
    }


def _write_users(
    transaction: Transaction,
    newest: Mapping[ObjectKey, Seen],
    before: Mapping[ObjectKey, ClerkObject],
    default_role: str | None,
) -> list[Difference]:
    seen = {
        id_: observation for (kind, id_), observation in newest.items() if kind is ClerkKind.USER
    }
    stored = transaction.get_many(User, [(id_,) for id_ in seen])
    created, changed, deleted = [], [], []
    differences = []
    for id_, observation in seen.items():
        user = stored.get((id_,))
        if isinstance(observation, UserSeen):
            known = before.get((ClerkKind.USER, id_))
            status_changed = known is not None and known.status is not status_of(observation)
            now = replace(
                user or User(id_),
                email=observation.email,
                name=observation.name,
                attributes=observation.attributes,
            )
            if user is None:
                created.append(now)
                differences.append(Difference("user", id_, Drift.MISSING))
            elif not same_entity(user, now):
                changed.append(now)
                differences.append(Difference("user", id_, Drift.DIFFERENT))
            elif status_changed or (known is None and observation.barred):
                differences.append(Difference("user", id_, Drift.DIFFERENT))
            continue
        # Also if there is no user: memberships and grants may have been written first.
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
    transaction.apply_many([replace(grant, id=derived_grant_id(grant)) for grant in grants])


def _write_organizations(
    transaction: Transaction, newest: Mapping[ObjectKey, Seen]
) -> list[Difference]:
    seen = {
        id_: observation
        for (kind, id_), observation in newest.items()
        if kind is ClerkKind.ORGANIZATION
    }
    stored = transaction.get_many(Organization, [(id_,) for id_ in seen])
    written, deleted, differences = [], [], []
    for id_, observation in seen.items():
        organization = stored.get((id_,))
        if isinstance(observation, OrganizationSeen):
            now = Organization(id_, observation.slug, observation.name)
            if now != organization:
                written.append(now)
                drift = Drift.MISSING if organization is None else Drift.DIFFERENT
                differences.append(Difference("organization", id_, drift))
            continue
        # Its resources stay, but no token can have it as its active organization again.
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
    touched = [state[kind_of(observation), observation.id] for observation in seen]
    pairs = {pair for membership in touched if (pair := _pair_of(membership)) is not None}
    wanted = _current_memberships(transaction, pairs, state)
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


def _current_memberships(
    transaction: Transaction, pairs: set[_Pair], state: Mapping[ObjectKey, ClerkObject]
) -> dict[_Pair, Membership]:
    """The memberships that exist now. Of each, the newest lifetime decides: an older one has ended,
    even if its deletion was not reported yet. None outlives its user or organization."""
    objects = {membership.id: membership for membership in read_memberships_of(transaction, pairs)}
    objects |= {
        id_: membership for (kind, id_), membership in state.items() if kind is ClerkKind.MEMBERSHIP
    }
    newest: dict[_Pair, ClerkObject] = {}
    for membership in objects.values():
        pair = _pair_of(membership)
        if pair in pairs and (
            pair not in newest
            or (newest[pair].version, newest[pair].id) < (membership.version, membership.id)
        ):
            newest[pair] = membership
    owners = {(ClerkKind.ORGANIZATION, organization_id) for organization_id, _ in pairs}
    owners |= {(ClerkKind.USER, user_id) for _, user_id in pairs}
    gone = {
        key
        for key, owner in {**_known(transaction, owners), **state}.items()
        if owner.status is ClerkStatus.DELETED
    }
    return {
        (organization_id, user_id): Membership(organization_id, user_id, membership.content["role"])
        for (organization_id, user_id), membership in newest.items()
        if membership.status is ClerkStatus.ACTIVE
        and (ClerkKind.ORGANIZATION, organization_id) not in gone
        and (ClerkKind.USER, user_id) not in gone
    }


def _pair_of(found: ClerkObject) -> _Pair | None:
    if found.kind is not ClerkKind.MEMBERSHIP:
        return None
    if found.organization_id is None or found.user_id is None:
        return None
    return found.organization_id, found.user_id


def _catalogue_differences(
    state: Mapping[ObjectKey, ClerkObject], before: Mapping[ObjectKey, ClerkObject]
) -> list[Difference]:
    """Differences of organization roles and permissions, which are stored as objects only."""
    differences = []
    for key, new in state.items():
        old = before.get(key)
        if new.kind not in (ClerkKind.ROLE, ClerkKind.PERMISSION) or new is old:
            continue
        if new.status is ClerkStatus.DELETED:
            if old is not None and old.status is not ClerkStatus.DELETED:
                differences.append(Difference(new.kind.value, new.id, Drift.EXTRA))
        elif old is None:
            differences.append(Difference(new.kind.value, new.id, Drift.MISSING))
        elif new.content != old.content:
            differences.append(Difference(new.kind.value, new.id, Drift.DIFFERENT))
    return differences


def _delete_unreported(transaction: Transaction, pair: _Pair) -> list[Difference]:
    if read_memberships_of(transaction, [pair]):
        return []  # Clerk has reported it meanwhile
    return _delete(transaction, [Membership(*pair, role="")])


def _delete(transaction: Transaction, entities: Sequence[Entity]) -> list[Difference]:
    """Deletes entities of one kind."""
    if not entities:
        return []
    gone = transaction.delete_many(type(entities[0]), [key_of(entity) for entity in entities])
    return [
        Difference(type(entity).__name__.lower(), "/".join(key_of(entity)), Drift.EXTRA)
        for entity in gone
    ]
