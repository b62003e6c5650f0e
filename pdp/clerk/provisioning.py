"""Provisioning at the first request: who proves to be somebody by a valid token is written down.

The token is the least that Clerk says of anybody: whatever a webhook or a sync says of them, before
or after, stands instead. Nothing is decided here; the decision is made from the database, as ever.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cachetools import FIFOCache

from pdp import names
from pdp.clerk.observations import Arrival
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
    """Admits the people behind tokens. Thread-safe. `admit` is `Directory.admit`.

    With `instance_id` only those of that Clerk instance, whose id is the `kid` of its tokens:
    people of another issuer would be unknown to the next sync, which removes them forever.

    One thread writes: the database takes one writer at a time anyway, and each more would hold one
    of the connections that the replica needs too. Requests that wait for the same find it done.

    `_settled` keeps, for SETTLED_SECONDS, that a database transaction has settled what is to come
    of a token, so that a member who was removed, or a user whom an administrator deleted, cannot
    cause a write with every request. Its key is the whole `Arrival`: all that is read of the token
    but when it was issued. Its value is the revision from which on the outcome is in the database,
    which is what decisions are then made from: an entry never allows anything, and at worst defers
    an admission that has become possible since. Time alone empties it, and its bound (oldest
    first). An error is not kept.
    """

    def __init__(
        self, admit: Callable[[Arrival, int], int], *, instance_id: str | None = None
    ) -> None:
        self._admit = admit
        self._instance_id = instance_id
        # Reading changes nothing in a FIFO cache, so that needs no lock.
        self._settled: FIFOCache[Arrival, _Settled] = FIFOCache(SETTLED_MAX)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="provisioning")

    async def __call__(self, token: VerifiedToken) -> int:
        """Settles what is to come of the token. Returns the revision from which on that is in the
        database; 0 where nothing is. Raises DatabaseUnavailable."""
        if self._instance_id not in (None, token.key_id):
            return 0
        arrival = arrival_of(token)
        settled = self._known(arrival)
        if settled is not None:
            return settled
        writing = self._writer.submit(self._settle, token, arrival)
        if not await done_within(writing, WRITE_SECONDS_MAX):
            writing.cancel()
            raise DatabaseUnavailable("too many new users wait for the database")
        return writing.result()

    def _settle(self, token: VerifiedToken, arrival: Arrival) -> int:
        settled = self._known(arrival)
        if settled is None:
            settled = self._admit(arrival, int(token.claims["iat"] * 1000))
            until = time.monotonic() + SETTLED_SECONDS
            self._settled[arrival] = _Settled(settled, until)
        return settled

    def _known(self, arrival: Arrival) -> int | None:
        try:
            entry = self._settled[arrival]
        except KeyError:
            return None
        return entry.revision if time.monotonic() < entry.until else None


def arrival_of(token: VerifiedToken) -> Arrival:
    """Who stands behind the token. What cannot be stored of the organization is left out."""
    actor = token.actor
    slug, role = token.claimed_organization_slug or "", token.claimed_organization_role
    sound_role = role is not None and names.check_identifier(role, "role") is None
    return Arrival(
        user_id=actor.user_id,
        session_id=actor.session_id,
        organization_id=actor.organization_id,
        organization_slug=slug if names.check_description(slug, "slug") is None else "",
        organization_role=role if sound_role else None,
    )
