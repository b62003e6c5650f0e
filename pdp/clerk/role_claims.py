"""Writes the names of a user's roles into their `public_metadata` at Clerk.

For user interfaces: an application may put them into its session token. Decisions never read them
there: they may be as old as the token, and anybody who may change metadata may change them.

A user whose stored attributes already hold the right names is skipped. This ends the cycle of a
push, the `user.updated` that Clerk sends for it, and the change that this makes here.
"""

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pdp.clerk.api import ClerkApi
from pdp.clock import Clock
from pdp.facts import Reader, Store
from pdp.facts.store.user_grants import read_grants_to
from pdp.model import Everywhere, Grant, Key, User

ATTRIBUTE = "pdp_roles"
PAGE_USERS = 500


@dataclass(frozen=True, slots=True)
class Claim:
    """The role names that a user's `public_metadata` should hold, and those it last held."""

    user_id: str
    wanted: Sequence[str]
    """Names of the roles that the user holds everywhere now, sorted."""
    stored: Any
    """Any JSON, because others write metadata too; an empty list if the key is missing."""

    @property
    def differs(self) -> bool:
        """Whether the metadata must be written."""
        return bool(self.wanted != self.stored)


class Outcome(enum.Enum):
    """The result for one user."""

    WRITTEN = "written"
    DIFFERENT = "different"
    """In a dry run: would be written."""
    SAME = "as it should be"
    UNKNOWN = "not known here"
    GONE = "not at Clerk"


def read_claim(store: Store, user_id: str, clock: Clock) -> Claim | None:
    """Reads the claim of a user; None if the user is not known.

    Raises:
        DatabaseUnavailable: The database does not answer.
        InvalidRequest: `user_id` is not a valid id.
    """
    with store.read() as reader:
        user = reader.get(User, (user_id,))
        return None if user is None else _claims(reader, [user], clock())[0]


def find_differences(store: Store, clock: Clock) -> Iterator[tuple[int, Sequence[Claim]]]:
    """Reads all users in pages; yields the number read and the claims that differ.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    after: Key | None = None
    while True:
        with store.read() as reader:
            users = reader.list(User, after, PAGE_USERS)
            claims = _claims(reader, users, clock())
        if not users:
            return
        yield len(users), [claim for claim in claims if claim.differs]
        after = (users[-1].id,)


def push_users(
    api: ClerkApi, store: Store, user_ids: Iterable[str], clock: Clock
) -> Iterator[tuple[str, Outcome]]:
    """Writes the claims that differ. Reads each user again right before writing, because much may
    have changed since the list was made. Raises what the API and `read_claim` raise."""
    for user_id in user_ids:
        claim = read_claim(store, user_id, clock)
        if claim is None:
            yield user_id, Outcome.UNKNOWN
        elif not claim.differs:
            yield user_id, Outcome.SAME
        else:
            yield user_id, write_claim(api, claim)


def write_claim(api: ClerkApi, claim: Claim) -> Outcome:
    """Writes a claim to Clerk. Raises what the API raises."""
    written = api.merge_public_metadata(claim.user_id, {ATTRIBUTE: list(claim.wanted)})
    return Outcome.WRITTEN if written else Outcome.GONE


def _claims(reader: Reader, users: Sequence[User], now: float) -> list[Claim]:
    grants = read_grants_to(reader, [user.id for user in users])
    return [
        Claim(
            user.id,
            _roles(grants.get(user.id, ()), now),
            user.attributes.get(ATTRIBUTE) or [],
        )
        for user in users
    ]


def _roles(grants: Iterable[Grant], now: float) -> list[str]:
    """Roles granted everywhere: a list of names cannot express a role in one organization."""
    return sorted(
        {
            grant.role
            for grant in grants
            if isinstance(grant.scope, Everywhere)
            and (grant.not_before is None or grant.not_before <= now)
            and (grant.expires_at is None or now < grant.expires_at)
        }
    )
