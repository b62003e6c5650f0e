"""Reads many facts, and finds which, in one transaction beside a snapshot of the same revision.

What it reads does not go into the caches: a list of a million rows would drop what Check needs.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from pdp.decision import ActorSearch, Policy, Search
from pdp.facts.replica.lookup import Look
from pdp.facts.replica.snapshot import Snapshot
from pdp.facts.replica.view import View
from pdp.facts.store.candidates import find_actors, find_candidates, grants_on_resources
from pdp.facts.store.loader import Gathered, gather
from pdp.facts.store.store import Reader
from pdp.model import Grant, Resource, ResourceFacts, UserFacts

T = TypeVar("T")


class Survey:
    """For one thread, as long as its transaction lives. Every method raises DatabaseUnavailable."""

    def __init__(self, reader: Reader, snapshot: Snapshot) -> None:
        self._reader = reader
        self._snapshot = snapshot
        self._gathered = Gathered(reader.revision, reader.epoch, {}, {}, {})

    @property
    def agrees(self) -> bool:
        """Whether transaction and snapshot are of one revision. Nothing may be read if not."""
        return self._snapshot.is_at(self._gathered)

    @property
    def revision(self) -> int:
        """That of the transaction."""
        return self._gathered.revision

    @property
    def policy(self) -> Policy:
        """At this revision."""
        return self._snapshot.policy

    def candidates(self, search: Search, after: str, limit: int) -> Sequence[Resource]:
        """Up to `limit` resources that a search covers, in the bytewise order of their ids, from
        behind `after` on; of each only its key. See `find_candidates`."""
        found = find_candidates(self._reader, search, after, limit)
        return [Resource(search.resource_type, id_) for id_ in found]

    def actors(self, search: ActorSearch, first: str, limit: int) -> Sequence[str]:
        """Up to `limit` ids of users that a search covers; see `find_actors`."""
        return find_actors(self._reader, search, first, limit)

    def grants_on_resources(self, organization_role: str, limit: int) -> Sequence[Grant]:
        """Up to `limit` grants to an organization role on single resources."""
        return grants_on_resources(self._reader, organization_role, limit)

    def chain(self, resource: Resource | None) -> tuple[ResourceFacts, ...]:
        """A resource and those above it, nearest first. Raises BrokenReference, InvalidRequest."""
        return self._complete(lambda look: look.chain(resource))

    def users(self, ids: Iterable[str]) -> Sequence[UserFacts | None]:
        """What is stored about users, in this order."""
        return self._complete(lambda look: [look.user(one) for one in ids])

    def views(
        self, actors: Sequence[tuple[str, str | None]], resource: Resource | None
    ) -> Sequence[View]:
        """`view` of each user while they act in an organization, on one resource."""
        self._complete(lambda look: [look.organization(active) for _, active in actors])
        return [self.view(*actor, (resource,)) for actor in actors]

    def view(
        self, user_id: str, organization_id: str | None, resources: Sequence[Resource | None]
    ) -> View:
        """What decisions about one actor are made from; see `Replica.view`. Raises BrokenReference,
        InvalidRequest."""

        def all_of(look: Look) -> View:
            return View(
                self._snapshot.policy,
                look.user(user_id),
                look.organization(organization_id),
                [look.chain(resource) for resource in resources],
                self._snapshot.revision,
                self._snapshot,
            )

        return self._complete(all_of)

    def _complete(self, find: Callable[[Look], T]) -> T:
        """What `find` finds once nothing that it looks for is missing."""
        while True:  # each time more is gathered, so nothing is missing in the end
            look = Look(self._snapshot, self._gathered)
            found = find(look)
            if not look.wanted:
                return found
            more = gather(self._reader, look.wanted)
            self._gathered.users.update(more.users)
            self._gathered.organizations.update(more.organizations)
            self._gathered.resources.update(more.resources)
