"""Finds and loads many facts in one transaction, at the revision of a snapshot.

The facts do not enter the caches: a list of a million rows would evict what Check needs.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from pdp.decision import ActorSearch, Policy, Search
from pdp.facts.replica.lookup import Lookup
from pdp.facts.replica.snapshot import Snapshot
from pdp.facts.replica.view import View
from pdp.facts.store.candidates import find_actors, find_candidates, grants_on_resources
from pdp.facts.store.loader import FactBatch, load_facts
from pdp.facts.store.reader import Reader
from pdp.model import Grant, Resource, ResourceFacts, UserFacts

T = TypeVar("T")


class Survey:
    """For one thread, while its transaction lives. Every method raises DatabaseUnavailable."""

    def __init__(self, reader: Reader, snapshot: Snapshot) -> None:
        self._reader = reader
        self._snapshot = snapshot
        self._batch = FactBatch(reader.revision, reader.epoch, {}, {}, {})

    @property
    def agrees(self) -> bool:
        """Whether transaction and snapshot have the same revision. If not, nothing may be read."""
        return self._snapshot.is_at(self._batch)

    @property
    def revision(self) -> int:
        """The revision of the transaction."""
        return self._batch.revision

    @property
    def policy(self) -> Policy:
        """The policy at this revision."""
        return self._snapshot.policy

    def candidates(self, search: Search, after: str, limit: int) -> Sequence[Resource]:
        """Returns up to `limit` resources that a search covers, with their keys only, in bytewise
        order of their ids after `after`. See `find_candidates`."""
        found = find_candidates(self._reader, search, after, limit)
        return [Resource(search.resource_type, id_) for id_ in found]

    def actors(self, search: ActorSearch, first: str, limit: int) -> Sequence[str]:
        """Returns up to `limit` ids of users that a search covers; see `find_actors`."""
        return find_actors(self._reader, search, first, limit)

    def grants_on_resources(self, organization_role: str, limit: int) -> Sequence[Grant]:
        """Returns up to `limit` grants to an organization role on single resources."""
        return grants_on_resources(self._reader, organization_role, limit)

    def chain(self, resource: Resource | None) -> tuple[ResourceFacts, ...]:
        """Returns a resource and its ancestors, nearest first.

        Raises:
            BrokenReference: The ancestors form a cycle or are too deep.
            InvalidRequest: An identifier cannot be stored.
        """
        return self._complete(lambda lookup: lookup.chain(resource))

    def users(self, ids: Iterable[str]) -> Sequence[UserFacts | None]:
        """Returns the facts about users, in the order of `ids`; None: the user is unknown."""
        return self._complete(lambda lookup: [lookup.user(user_id) for user_id in ids])

    def views(
        self, actors: Sequence[tuple[str, str | None]], resource: Resource | None
    ) -> Sequence[View]:
        """Returns the `view` of each (user id, organization id) on one resource."""
        self._complete(lambda lookup: [lookup.organization(active) for _, active in actors])
        return [self.view(*actor, (resource,)) for actor in actors]

    def view(
        self, user_id: str, organization_id: str | None, resources: Sequence[Resource | None]
    ) -> View:
        """Returns the facts that decisions about one actor need; see `Replica.view`.

        Raises:
            BrokenReference: The ancestors of a resource form a cycle or are too deep.
            InvalidRequest: An identifier cannot be stored.
        """

        def all_of(lookup: Lookup) -> View:
            return View(
                self._snapshot.policy,
                lookup.user(user_id),
                lookup.organization(organization_id),
                [lookup.chain(resource) for resource in resources],
                self._snapshot.revision,
                self._snapshot,
            )

        return self._complete(all_of)

    def _complete(self, find: Callable[[Lookup], T]) -> T:
        """Returns what `find` returns once all facts that it needs are loaded."""
        while True:  # ends: each round loads more of the facts
            lookup = Lookup(self._snapshot, self._batch)
            found = find(lookup)
            if not lookup.missing:
                return found
            more = load_facts(self._reader, lookup.missing)
            self._batch.users.update(more.users)
            self._batch.organizations.update(more.organizations)
            self._batch.resources.update(more.resources)
