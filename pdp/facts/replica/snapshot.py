"""The policy and the cached facts of one process, at one revision.

Three caches, each bounded, first in first out, and keyed by all that was read:

    cache          key              an entry is all that is stored about  emptied by a change of
    users          user id          a user, or that there is none         USER
    organizations  organization id  an organization's role grants         ORGANIZATION
    resources      (type, id)       a resource and its role grants, or    RESOURCE
                                    that there is none

Every entry carries the revision that it was read at. The rules that hold:

1. An entry is stored, under the lock, only if no later revision was applied since it was read.
2. To apply a revision is, under the same lock, first to drop the keys that it touched and then to
   put the new snapshot in place.
3. A new epoch, a gap in the changes, or a change of EVERYTHING begins new caches.

From 1 and 2: what a cache holds at any moment, was it read at or before the snapshot's revision, is
what the database held at the snapshot's revision. So a reader takes no lock: it takes the snapshot
first, then entries, and passes over those that were read at a later revision than its snapshot's.
An entry that is dropped while it looks is merely missing, or was still true at its snapshot.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from cachetools import FIFOCache

from pdp.decision import Policy
from pdp.errors import FactsStale
from pdp.facts.store.changelog import Change, ChangeKind
from pdp.facts.store.loader import Gathered
from pdp.model import OrganizationFacts, ResourceFacts, UserFacts

T = TypeVar("T")

USERS_MAX = 50_000
ORGANIZATIONS_MAX = 20_000
RESOURCES_MAX = 50_000


class Entry(NamedTuple, Generic[T]):
    """A value as it was at a revision."""

    revision: int
    value: T


# First in first out, because then reading changes nothing and needs no lock.
class Caches:
    """The caches that snapshots of one epoch share."""

    __slots__ = ("organizations", "resources", "users")

    def __init__(self) -> None:
        self.users: FIFOCache[str, Entry[UserFacts | None]] = FIFOCache(USERS_MAX)
        self.organizations: FIFOCache[str, Entry[OrganizationFacts]] = FIFOCache(ORGANIZATIONS_MAX)
        self.resources: FIFOCache[tuple[str, str], Entry[ResourceFacts]] = FIFOCache(RESOURCES_MAX)

    def drop(self, change: Change) -> None:
        """Drops the entry that a change touched."""
        if change.kind is ChangeKind.USER:
            self.users.pop(change.key[0], None)
        elif change.kind is ChangeKind.ORGANIZATION:
            self.organizations.pop(change.key[0], None)
        elif change.kind is ChangeKind.RESOURCE:
            self.resources.pop((change.key[0], change.key[1]), None)


@dataclass(slots=True, eq=False)
class Snapshot:
    """What holds at one revision. Only `confirmed_at` changes, and only while it is current."""

    policy: Policy
    revision: int
    epoch: str
    caches: Caches
    confirmed_at: float
    """time.monotonic() before the last query that showed this to be the newest revision."""
    number: int = 0
    """Counts the snapshots of this process, whatever revisions and epochs they are of."""

    def is_at(self, gathered: Gathered) -> bool:
        """Whether what was read is of exactly this revision."""
        return self.revision == gathered.revision and self.epoch == gathered.epoch


class SnapshotCell:
    """Holds the current snapshot; the one place where the rules above are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: Snapshot | None = None
        self.oldest = 0
        """Nothing is answered any more from a snapshot with a smaller number, however fresh."""

    @property
    def loaded(self) -> bool:
        """Whether there is a snapshot."""
        return self._current is not None

    @property
    def current(self) -> Snapshot:
        """The newest snapshot that was applied.

        Raises:
            FactsStale: nothing was loaded yet.
        """
        current = self._current
        if current is None:
            raise FactsStale("policy and facts are not loaded yet")
        return current

    def retire(self) -> None:
        """From now on nothing is answered any more from snapshots before the current one."""
        self.oldest = self.current.number

    def fill(self, gathered: Gathered) -> None:
        """Stores what was read, unless a later revision was applied meanwhile (rule 1)."""
        with self._lock:
            current = self._current
            if (
                current is None
                or current.epoch != gathered.epoch
                or current.revision > gathered.revision
            ):
                return
            revision, caches = gathered.revision, current.caches
            for user_id, user in gathered.users.items():
                caches.users[user_id] = Entry(revision, user)
            for organization_id, organization in gathered.organizations.items():
                caches.organizations[organization_id] = Entry(revision, organization)
            for key, resource in gathered.resources.items():
                caches.resources[key] = Entry(revision, resource)

    def advance(
        self, policy: Policy, revision: int, changes: Iterable[Change], confirmed_at: float
    ) -> None:
        """Applies the changes up to a later revision of the same epoch (rule 2)."""
        with self._lock:
            current = self.current
            for change in changes:
                current.caches.drop(change)
            self._current = Snapshot(
                policy, revision, current.epoch, current.caches, confirmed_at, current.number + 1
            )

    def restart(self, policy: Policy, revision: int, epoch: str, confirmed_at: float) -> None:
        """Starts over, whatever was there (rule 3)."""
        with self._lock:
            number = self._current.number + 1 if self._current else 0
            self._current = Snapshot(policy, revision, epoch, Caches(), confirmed_at, number)
