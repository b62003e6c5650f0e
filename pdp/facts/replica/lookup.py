"""One attempt to read facts from the caches, without a lock."""

from typing import TypeVar

from cachetools import FIFOCache

from pdp.errors import BrokenReference
from pdp.facts.replica.snapshot import Entry, Snapshot
from pdp.facts.store.loader import FactBatch, FactKeys
from pdp.limits import RESOURCE_DEPTH_MAX
from pdp.model import OrganizationFacts, Resource, ResourceFacts, UserFacts

K = TypeVar("K")
V = TypeVar("V")


class Lookup:
    """Reads facts at the revision of a snapshot, and collects the keys that are `missing`."""

    __slots__ = ("_batch", "_caches", "_revision", "missing")

    def __init__(self, snapshot: Snapshot, batch: FactBatch | None) -> None:
        self._caches = snapshot.caches
        self._revision = snapshot.revision
        # A batch of the same revision is used too: a cache may be too small for it.
        usable = batch is not None and snapshot.is_at(batch)
        self._batch = batch if usable else None
        self.missing: FactKeys | None = None
        """Keys that are neither cached nor in the batch; None: there are none."""

    def user(self, user_id: str) -> UserFacts | None:
        """Returns the facts about a user; None: there are none, or they are missing."""
        entry = self._cached(self._caches.users, user_id)
        if entry is not None:
            return entry.value
        if self._batch is not None and user_id in self._batch.users:
            return self._batch.users[user_id]
        self._missing_keys().users.add(user_id)
        return None

    def organization(self, organization_id: str | None) -> OrganizationFacts | None:
        """Returns the facts about an organization; None: no id, or they are missing."""
        if organization_id is None:
            return None
        entry = self._cached(self._caches.organizations, organization_id)
        if entry is not None:
            return entry.value
        if self._batch is not None and organization_id in self._batch.organizations:
            return self._batch.organizations[organization_id]
        self._missing_keys().organizations.add(organization_id)
        return None

    def chain(self, requested: Resource | None) -> tuple[ResourceFacts, ...]:
        """Returns a resource and its ancestors, nearest first; empty: no resource, or some of them
        are missing.

        Raises:
            BrokenReference: The ancestors form a cycle or are deeper than RESOURCE_DEPTH_MAX.
        """
        if requested is None:
            return ()
        known = self._resource((requested.type, requested.id))
        if known is None:
            if requested.parent is not None:
                # It is likely needed: one transaction instead of two.
                self._resource((requested.parent.type, requested.parent.id))
            return ()
        first = _merged(requested, known)
        parent = first.resource.parent
        if parent is None:
            return (first,)
        chain = [first]
        while parent is not None:
            if len(chain) > RESOURCE_DEPTH_MAX:
                raise _too_deep(requested)
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
        if self._batch is not None and key in self._batch.resources:
            return self._batch.resources[key]
        self._missing_keys().resources.add(key)
        return None

    def _missing_keys(self) -> FactKeys:
        if self.missing is None:
            self.missing = FactKeys()
        return self.missing


def _merged(requested: Resource, known: ResourceFacts) -> ResourceFacts:
    """Merges the attributes; organization, parent and attributes that are stored win."""
    if not known.stored:
        return ResourceFacts(requested, known.role_grants)
    if not requested.attributes:
        return known
    stored = known.resource
    merged = Resource(
        stored.type,
        stored.id,
        stored.organization_id,
        stored.parent,
        {**requested.attributes, **stored.attributes},
    )
    return ResourceFacts(merged, known.role_grants, stored=True)


def _too_deep(requested: Resource) -> BrokenReference:
    name = f"{requested.type}/{requested.id}"
    return BrokenReference(
        f"the resource {name!r} has ancestors in a circle or more than {RESOURCE_DEPTH_MAX} deep",
        "resource",
        name,
    )
