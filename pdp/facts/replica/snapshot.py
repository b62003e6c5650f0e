"""The policy and the cached facts of one process, at one revision.

Three caches, each bounded, first in first out, and keyed by all that was read:

    cache          key              value                                 invalidated by a change of
    users          user id          the facts about a user, or None       USER
    organizations  organization id  the role grants of an organization    ORGANIZATION
    resources      (type, id)       a resource, if it is stored, and its  RESOURCE
                                    role grants

Every entry has the revision at which it was read. The rules:

1. An entry is stored, under the lock, only if no later revision was applied since it was read.
2. A revision is applied under the same lock: first the keys that it touched are dropped, then the
   new snapshot becomes the current one.
3. A new epoch, a gap in the changes, or a change of EVERYTHING begins with empty caches.

1 and 2 imply: if an entry was read at or before the revision of a snapshot, the database held the
same value at that revision. So a reader needs no lock. It takes the snapshot first, then the
entries, and ignores those that were read after the revision of its snapshot. An entry that is
dropped meanwhile is either missing, or was still true at the snapshot.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from cachetools import FIFOCache

from pdp.decision import Policy, Principal
from pdp.errors import FactsStale
from pdp.facts.store.changelog import Change, ChangeKind
from pdp.facts.store.loader import FactBatch
from pdp.model import OrganizationFacts, ResourceFacts, UserFacts

T = TypeVar("T")

USERS_MAX = 50_000
ORGANIZATIONS_MAX = 20_000
RESOURCES_MAX = 50_000
PRINCIPALS_MAX = 1_000


class Entry(NamedTuple, Generic[T]):
    """A value and the revision at which it was read."""

    revision: int
    value: T


# First in, first out: so a read changes nothing and needs no lock.
class Caches:
    """The caches of one epoch, which its snapshots share."""

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
    """The policy and caches at one revision. `confirmed_at` changes while it is the current one."""

    policy: Policy
    revision: int
    epoch: str
    caches: Caches
    confirmed_at: float
    """time.monotonic() before the last query that showed this to be the newest revision."""
    number: int = 0
    """Counts the snapshots of this process, across revisions and epochs."""
    principals: dict[int, Principal] = field(default_factory=dict)
    """Principals at this revision, by identity of their token. See `View.principal`."""

    def is_at(self, batch: FactBatch) -> bool:
        """Whether a batch was read at exactly this revision."""
        return self.revision == batch.revision and self.epoch == batch.epoch


class SnapshotCell:
    """Holds the current snapshot. Only this class enforces the rules above."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: Snapshot | None = None
        self.oldest = 0
        """Snapshots with a smaller number are refused, however fresh."""

    @property
    def loaded(self) -> bool:
        """Whether there is a snapshot."""
        return self._current is not None

    @property
    def current(self) -> Snapshot:
        """The current snapshot.

        Raises:
            FactsStale: Nothing was loaded yet.
        """
        current = self._current
        if current is None:
            raise FactsStale("policy and facts are not loaded yet")
        return current

    def retire(self) -> None:
        """Refuses, from now on, answers from snapshots before the current one."""
        self.oldest = self.current.number

    def fill(self, batch: FactBatch) -> None:
        """Caches a batch, unless a later revision was applied meanwhile (rule 1)."""
        with self._lock:
            current = self._current
            if current is None or current.epoch != batch.epoch or current.revision > batch.revision:
                return
            revision, caches = batch.revision, current.caches
            for user_id, user in batch.users.items():
                caches.users[user_id] = Entry(revision, user)
            for organization_id, organization in batch.organizations.items():
                caches.organizations[organization_id] = Entry(revision, organization)
            for key, resource in batch.resources.items():
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
        """Replaces the snapshot and begins with empty caches (rule 3)."""
        with self._lock:
            number = self._current.number + 1 if self._current else 0
            self._current = Snapshot(policy, revision, epoch, Caches(), confirmed_at, number)
