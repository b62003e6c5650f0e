"""One account's life as Clerk could tell it, and what the database holds of it in the end."""

from collections.abc import Sequence

from pdp.clerk.observations import (
    DeletionSeen,
    MembershipSeen,
    Observation,
    OrganizationSeen,
    SessionEnded,
    UserSeen,
)
from pdp.facts import Reader
from pdp.facts.store.clerk_objects import ClerkKind, read_objects
from pdp.facts.store.references import find_referrers
from pdp.model import Grant, Membership, Organization, User

DAY = 86_400_000


def user(name: str, at: int, /, *, noticed_at: int | None = None, **said: object) -> UserSeen:
    """A user as of `at` (milliseconds)."""
    return UserSeen(
        id=f"user_{name}",
        updated_at=at,
        noticed_at=at if noticed_at is None else noticed_at,
        **said,  # type: ignore[arg-type]
    )


def organization(name: str, at: int, /, **said: object) -> OrganizationSeen:
    return OrganizationSeen(
        id=f"org_{name}",
        updated_at=at,
        noticed_at=at,
        **said,  # type: ignore[arg-type]
    )


def membership(
    name: str, at: int, role: str = "org:member", *, born: int, life: str = "1"
) -> MembershipSeen:
    """A membership of `user_<name>` in `org_<name>` as of `at`, of the life begun at `born`."""
    return MembershipSeen(
        id=f"orgmem_{name}{life}",
        created_at=born,
        updated_at=at,
        noticed_at=at,
        role=role,
        organization_id=f"org_{name}",
        user_id=f"user_{name}",
    )


def end_of_membership(name: str, at: int, *, born: int, life: str = "1") -> DeletionSeen:
    """Its end as Clerk reports it: the whole membership, and `updated_at` as it was before."""
    return DeletionSeen(
        kind=ClerkKind.MEMBERSHIP,
        id=f"orgmem_{name}{life}",
        created_at=born,
        updated_at=born,
        noticed_at=at,
        organization_id=f"org_{name}",
        user_id=f"user_{name}",
    )


def end_of(kind: ClerkKind, id_: str, at: int) -> DeletionSeen:
    """A deletion with little payload."""
    return DeletionSeen(kind=kind, id=id_, updated_at=0, noticed_at=at)


def session_end(name: str, session: str = "1") -> SessionEnded:
    return SessionEnded(session_id=f"sess_{name}{session}", user_id=f"user_{name}")


def state_of(reader: Reader, name: str) -> Sequence[object]:
    """The stored state of the account, without its name."""
    user_id, organization_id = f"user_{name}", f"org_{name}"
    known = read_objects(reader, ClerkKind.USER, [user_id]).get(user_id)
    found = reader.get(User, (user_id,))
    place = reader.get(Organization, (organization_id,))
    member = reader.get(Membership, (organization_id, user_id))
    grants = find_referrers(reader, Grant, user_id=user_id)
    return (
        found and (found.email, found.name, found.status, dict(found.attributes)),
        known and known.status,
        place and (place.slug, place.name),
        member and member.role,
        sorted(grant.role for grant in grants),
    )


Life = Sequence[Observation]
