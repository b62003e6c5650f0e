"""One attempt to take a view from the caches, without a lock."""

from typing import TypeVar

from cachetools import FIFOCache

from pdp.errors import BrokenReference
from pdp.facts.replica.snapshot import Entry, Snapshot
from pdp.facts.store.loader import Gathered, Wanted
from pdp.limits import RESOURCE_DEPTH_MAX
from pdp.model import OrganizationFacts, Resource, ResourceFacts, UserFacts

K = TypeVar("K")
V = TypeVar("V")


class Look:
    """One attempt to take a view: what it finds at a snapshot, and what is wanting."""

    __slots__ = ("_caches", "_gathered", "_revision", "wanted")

    def __init__(self, snapshot: Snapshot, gathered: Gathered | None) -> None:
        self._caches = snapshot.caches
        self._revision = snapshot.revision
        # What was just read at the snapshot's revision serves though a cache may have no room.
        usable = gathered is not None and snapshot.is_at(gathered)
        self._gathered = gathered if usable else None
        self.wanted: Wanted | None = None
        """What is neither cached nor gathered; None: nothing."""

    def user(self, user_id: str) -> UserFacts | None:
        entry = self._cached(self._caches.users, user_id)
        if entry is not None:
            return entry.value
        if self._gathered is not None and user_id in self._gathered.users:
            return self._gathered.users[user_id]
        self._want().users.add(user_id)
        return None

    def organization(self, organization_id: str | None) -> OrganizationFacts | None:
        if organization_id is None:
            return None
        entry = self._cached(self._caches.organizations, organization_id)
        if entry is not None:
            return entry.value
        if self._gathered is not None and organization_id in self._gathered.organizations:
            return self._gathered.organizations[organization_id]
        self._want().organizations.add(organization_id)
        return None

    def chain(self, asked: Resource | None) -> tuple[ResourceFacts, ...]:
        if asked is None:
            return ()
        known = self._resource((asked.type, asked.id))
        if known is None:
            if asked.parent is not None:
                # Likely needed: one transaction instead of two.
                self._resource((asked.parent.type, asked.parent.id))
            return ()
        first = _merged(asked, known)
        parent = first.resource.parent
        if parent is None:
            return (first,)
        chain = [first]
        while parent is not None:
            if len(chain) > RESOURCE_DEPTH_MAX:
                raise _endless(asked)
            above = self._resource((parent.type, parent.id))
            if above is None:
                return ()
            chain.append(above)
            parent = above.resource.parent
        return tuple(chain)

    def _cached(self, cache: FIFOCache[K, Entry[V]], key: K) -> Entry[V] | None:
        try:
            entry = cache[key]
        except KeyError:
            return None
        return entry if entry.revision <= self._revision else None

    def _resource(self, key: tuple[str, str]) -> ResourceFacts | None:
        entry = self._cached(self._caches.resources, key)
        if entry is not None:
            return entry.value
        if self._gathered is not None and key in self._gathered.resources:
            return self._gathered.resources[key]
        self._want().resources.add(key)
        return None

    def _want(self) -> Wanted:
        if self.wanted is None:
            self.wanted = Wanted()
        return self.wanted


def _merged(asked: Resource, known: ResourceFacts) -> ResourceFacts:
    """What is stored wins: organization and parent whole, attributes one by one."""
    if not known.stored:
        return ResourceFacts(asked, known.role_grants)
    if not asked.attributes:
        return known
    stored = known.resource
    merged = Resource(
        stored.type,
        stored.id,
        stored.organization_id,
        stored.parent,
        {**asked.attributes, **stored.attributes},
    )
    return ResourceFacts(merged, known.role_grants, stored=True)


def _endless(asked: Resource) -> BrokenReference:
    name = f"{asked.type}/{asked.id}"
    return BrokenReference(
        f"the resource {name!r} has ancestors in a circle or more than {RESOURCE_DEPTH_MAX} deep",
        "resource",
        name,
    )
