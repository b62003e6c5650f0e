"""Provisioning at the first request: creates the user that a valid token proves.

A token is the weakest source: whatever a webhook or a sync reports about the user, before or after,
overrides it. Nothing is decided here; the decision is made from the database, as always.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cachetools import FIFOCache

from pdp import names
from pdp.clerk.observations import TokenIdentity
from pdp.concurrency.waiting import done_within
from pdp.errors import DatabaseUnavailable
from pdp.model import VerifiedToken

SETTLED_SECONDS = 10
SETTLED_MAX = 10_000
WRITE_SECONDS_MAX = 3.0


class _Settled(NamedTuple):
    revision: int
    until: float
    """Monotonic time."""


class Provisioner:
    """Creates the users of verified tokens, with their membership. Thread-safe.

    `admit` is `Directory.admit`. With `instance_id`, only for tokens of that Clerk instance, whose
    id is the `kid` of its tokens: the next sync would not find users of another issuer, and would
    delete them permanently.

    One thread writes: the database takes one writer at a time anyway, and each further thread would
    hold a connection that the replica needs. Requests that wait for the same user share the result.

    `_settled` is a cache of tokens that need no further write, for SETTLED_SECONDS. Without it, a
    removed member, or a user that an administrator deleted, would cause a write with every request.
    Its key is the whole `TokenIdentity`: all that is read from the token except its time of issue.
    Its value is the revision from which on the result is in the database. Decisions are made from
    the database, so an entry never allows anything; at worst it delays the creation of a user.
    Entries leave by age and by the size limit (oldest first). Errors are not cached.
    """

    def __init__(
        self, admit: Callable[[TokenIdentity, int], int], *, instance_id: str | None = None
    ) -> None:
        self._admit = admit
        self._instance_id = instance_id
        # Reading changes nothing in a FIFO cache, so that needs no lock.
        self._settled: FIFOCache[TokenIdentity, _Settled] = FIFOCache(SETTLED_MAX)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="provisioning")

    async def __call__(self, token: VerifiedToken) -> int:
        """Creates what the token proves, if it does not exist.

        Returns:
            The revision from which on the database contains it; 0 for another Clerk instance.

        Raises:
            DatabaseUnavailable: The database is away, or too many new users wait for it.
        """
        if self._instance_id not in (None, token.key_id):
            return 0
        identity = token_identity_of(token)
        settled = self._known(identity)
        if settled is not None:
            return settled
        writing = self._writer.submit(self._settle, token, identity)
        if not await done_within(writing, WRITE_SECONDS_MAX):
            writing.cancel()
            raise DatabaseUnavailable("too many new users wait for the database")
        return writing.result()

    def _settle(self, token: VerifiedToken, identity: TokenIdentity) -> int:
        settled = self._known(identity)
        if settled is None:
            settled = self._admit(identity, int(token.claims["iat"] * 1000))
            until = time.monotonic() + SETTLED_SECONDS
            self._settled[identity] = _Settled(settled, until)
        return settled

    def _known(self, identity: TokenIdentity) -> int | None:
        try:
            entry = self._settled[identity]
        except KeyError:
            return None
        return entry.revision if time.monotonic() < entry.until else None


def token_identity_of(token: VerifiedToken) -> TokenIdentity:
    """What a verified token proves. A slug or role that cannot be stored is left out."""
    actor = token.actor
    slug, role = token.claimed_organization_slug or "", token.claimed_organization_role
    sound_role = role is not None and names.check_identifier(role, "role") is None
    return TokenIdentity(
        user_id=actor.user_id,
        session_id=actor.session_id,
        organization_id=actor.organization_id,
        organization_slug=slug if names.check_description(slug, "slug") is None else "",
        organization_role=role if sound_role else None,
    )
