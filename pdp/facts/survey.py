"""Reads many facts, and finds which, in one transaction beside a snapshot of the same revision.

What it reads does not go into the caches: a list of a million rows would drop what Check needs.
"""

from collections.abc import Sequence

from pdp.decision import Policy, Search
from pdp.facts.candidates import find_candidates
from pdp.facts.gather import Gathered, gather
from pdp.facts.look import Look
from pdp.facts.snapshot import Snapshot
from pdp.facts.store import Reader
from pdp.facts.view import View
from pdp.model import Resource


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

    def view(
        self, user_id: str, organization_id: str | None, resources: Sequence[Resource | None]
    ) -> View:
        """What decisions about one actor are made from; see `Replica.view`. Raises BrokenReference,
        InvalidRequest."""
        while True:
            look = Look(self._snapshot, self._gathered)
            user = look.user(user_id)
            organization = look.organization(organization_id)
            chains = [look.chain(resource) for resource in resources]
            if not look.wanted:
                break
            more = gather(self._reader, look.wanted)
            self._gathered.users.update(more.users)
            self._gathered.organizations.update(more.organizations)
            self._gathered.resources.update(more.resources)
        return View(
            self._snapshot.policy,
            user,
            organization,
            chains,
            self._snapshot.revision,
            self._snapshot,
        )
