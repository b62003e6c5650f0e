"""Serves policy and facts at one revision from memory, and follows the changes.

Facts in memory are returned without suspending; a bounded pool of threads loads the others. One
thread polls the database. Facts about users are loaded on demand. Freshness has a bound: each
answer is checked, after the evaluation, against the time at which its revision was last confirmed
as the newest. A row in the database lets a waiting barrier know of this replica.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import TypeVar

import structlog

from pdp.concurrency.background import BackgroundTask
from pdp.database.engine import allow_long_statements
from pdp.decision import Policy
from pdp.errors import (
    DatabaseUnavailable,
    FactsStale,
    RevisionNotReached,
)
from pdp.facts.replica.change_feed import ChangeSubscription, History
from pdp.facts.replica.lookup import Lookup
from pdp.facts.replica.poll_waits import PollWaits
from pdp.facts.replica.reading import LOAD_WAIT_SECONDS_MAX, Reading
from pdp.facts.replica.registration import PollResult, Registration
from pdp.facts.replica.snapshot import Snapshot, SnapshotCell
from pdp.facts.replica.survey import Survey
from pdp.facts.replica.view import View
from pdp.facts.store.changelog import EVERYTHING
from pdp.facts.store.loader import (
    FactBatch,
    FactKeys,
    load_facts,
    read_policy,
    read_policy_changes,
)
from pdp.facts.store.reader import Reader
from pdp.facts.store.state import State
from pdp.facts.store.store import Store
from pdp.gauges import Gauges
from pdp.model import Resource

log = structlog.get_logger(__name__)

T = TypeVar("T")

ATTEMPTS_MAX = 3
RETRY_SECONDS_MAX = 0.2
"""After a failed poll: the connection may be dead although the database is reachable."""
REVISIONS_TO_FOLLOW_MAX = 1_000
"""A replica that is further behind reloads everything."""


class Replica:
    """The policy and facts that one process decides from. Thread-safe.

    Start it after a fork, not before. `view` loads what an evaluation needs, and `confirm` checks
    afterwards that the view is still fresh:

        view = await replica.view("user_1", "org_1", [Resource("course", "algebra")])
        decision = ...  # pure evaluation
        replica.confirm(view)
    """

    def __init__(self, store: Store, *, staleness_seconds_max: float, poll_seconds: float) -> None:
        self._store = store
        self._staleness_seconds_max = staleness_seconds_max
        self._poll_seconds = poll_seconds
        self._cell = SnapshotCell()
        self._history = History()
        self._registration = Registration(store.engine, staleness_seconds_max)
        self._catch_up_lock = threading.Lock()
        self._reading = Reading(store, self._cell)
        self._polls = PollWaits()
        retry_seconds = min(poll_seconds, RETRY_SECONDS_MAX)
        self._task = BackgroundTask(
            "replica",
            self._poll,
            retry_seconds=(retry_seconds, retry_seconds),
            log=log,
            failed="facts_not_followed",
            on_recovered=lambda: log.info("facts_followed_again", revision=self.revision),
            at_end=self._deregister,
        )

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts to poll the database; returns at once. See `ready`."""
        self._task.start()

    def stop(self) -> None:
        """Stops to poll. Call it once this process answers no request any more."""
        self._task.stop(LOAD_WAIT_SECONDS_MAX)
        self._reading.close()

    def poke(self) -> None:
        """Polls now instead of later; called after a write."""
        self._task.wake()

    @property
    def problem(self) -> str | None:
        """Why the last poll failed; None: it succeeded."""
        return self._task.problem

    def ready(self) -> bool:
        """Whether policy and facts are loaded and confirmed within the bound."""
        return self.staleness_seconds() < self._staleness_seconds_max

    def staleness_seconds(self) -> float:
        """Seconds since the served revision was last confirmed as the newest; infinite at first."""
        if not self._cell.loaded:
            return inf
        return time.monotonic() - self._cell.current.confirmed_at

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "pdp_revision": ("Revision that is served.", lambda: self.revision),
            "pdp_staleness_seconds": (
                "Time since every change was confirmed as seen.",
                self.staleness_seconds,
            ),
        }

    @property
    def policy(self) -> Policy:
        """The policy that is served.

        Raises:
            FactsStale: Nothing was loaded yet.
        """
        return self._cell.current.policy

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that is served.

        Raises:
            FactsStale: Nothing was loaded yet.
        """
        return self._cell.current

    @property
    def revision(self) -> int:
        """The revision that is served; 0 before the first load."""
        return self._cell.current.revision if self._cell.loaded else 0

    async def await_revision(self, revision: int) -> bool:
        """Waits up to CATCH_UP_SECONDS_MAX for a revision; returns whether it is served."""
        if self.revision < revision:
            # One poll is enough: if it begins now, it sees everything that was committed before.
            await self._polls.wait(self.poke, revision)
        return self.revision >= revision

    # --- reading --------------------------------------------------------------------------------

    async def view(
        self,
        user_id: str,
        organization_id: str | None,
        resources: Sequence[Resource | None],
        at_least_revision: int = 0,
    ) -> View:
        """Returns everything that decisions about one actor need, at one revision.

        Suspends only if a fact is not in memory or `at_least_revision` is not served yet.

        The stored organization and parent of a resource replace those of the request. Attributes
        are merged; a stored attribute replaces one of the same name.

        Args:
            user_id: Clerk's id of the actor.
            organization_id: The organization that is active in the token; None: none is.
            resources: The resources of the request; None: a check without a resource.
            at_least_revision: The view is of this revision or a later one.

        Raises:
            FactsStale: The newest revision was not confirmed within the bound.
            RevisionNotReached: The database does not hold `at_least_revision`, or this process
                did not see it within CATCH_UP_SECONDS_MAX.
            DatabaseUnavailable: A fact that is not in memory cannot be read.
            BrokenReference: The ancestors of a resource form a cycle or are deeper than
                RESOURCE_DEPTH_MAX. The ancestors above would be unknown, so there is no answer.
            InvalidRequest: An identifier cannot be stored.
        """
        if at_least_revision and at_least_revision > self.revision:
            await self._reach(at_least_revision)

        batch: FactBatch | None = None
        for _ in range(ATTEMPTS_MAX):
            snapshot = self._cell.current
            view = self._find(snapshot, batch, user_id, organization_id, resources)
            if isinstance(view, View):
                return view
            batch = await self._reading.load(view) or batch
            if batch is not None and not self._cell.current.is_at(batch):
                await self._polls.wait(self.poke, inf)
        # The facts change faster than two transactions can agree: one transaction for all.
        keys = _all_keys(user_id, organization_id, resources)
        snapshot, batch = await self._reading.run(
            lambda: self._catch_up_and_read(lambda reader: load_facts(reader, keys))
        )
        view = self._find(snapshot, batch, user_id, organization_id, resources)
        if isinstance(view, View):
            return view
        raise DatabaseUnavailable("the facts changed faster than they could be read")

    def _find(
        self,
        snapshot: Snapshot,
        batch: FactBatch | None,
        user_id: str,
        organization_id: str | None,
        resources: Sequence[Resource | None],
    ) -> View | FactKeys:
        """The view at a snapshot, or the keys that are missing for it."""
        self.require_fresh(snapshot)
        lookup = Lookup(snapshot, batch)
        user = lookup.user(user_id)
        organization = lookup.organization(organization_id)
        chains = [lookup.chain(resource) for resource in resources]
        if lookup.missing is not None:
            return lookup.missing
        return View(snapshot.policy, user, organization, chains, snapshot.revision, snapshot)

    async def survey(self, read: Callable[[Survey], T], at_least_revision: int = 0) -> T:
        """Calls `read` in a thread of the pool, with a transaction at the served revision.

        Returns:
            What `read` returns.

        Raises:
            FactsStale: As in `view`, as are RevisionNotReached and DatabaseUnavailable. Errors of
                `read` are passed on.
        """
        if at_least_revision > self.revision:
            await self._reach(at_least_revision)

        def attempt() -> Survey | tuple[T]:
            with self._store.read() as reader:
                survey = Survey(reader, self._cell.current)
                return (read(survey),) if survey.agrees else survey

        for _ in range(ATTEMPTS_MAX):
            done = await self._reading.run(attempt)
            if isinstance(done, tuple):
                return done[0]
            await self.await_revision(done.revision)
        # The revision changes faster than it is polled: hold the lock, so that none is applied.
        _, found = await self._reading.run(
            lambda: self._catch_up_and_read(lambda reader: read(Survey(reader, self._cell.current)))
        )
        return found

    def confirm(self, view: View) -> None:
        """Checks, after the evaluation, that the view is still within the staleness bound.

        The revision of the view counts: if the process caught up during a pause, that does not
        make the answer newer.

        Raises:
            FactsStale: The view is too old.
        """
        self.require_fresh(view.snapshot)

    # --- subscriptions --------------------------------------------------------------------------

    def subscribe(self, epoch: str, after_revision: int) -> ChangeSubscription:
        """Subscribes to the changes after a revision.

        Args:
            epoch: The epoch of `after_revision`; empty: changes from now on.
            after_revision: The last revision that the subscriber has processed.
        """
        if after_revision > self.revision:
            self.poke()
        return ChangeSubscription(
            self._cell, self._history, self._staleness_seconds_max, epoch, after_revision
        )

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls `listener` when subscriptions may have changes to return. It must not block."""
        self._history.listen(listener)

    def require_fresh(self, snapshot: Snapshot) -> None:
        """Checks that answers may still be given from a snapshot.

        Raises:
            FactsStale: It is too old, or a barrier has retired it.
        """
        age_seconds = time.monotonic() - snapshot.confirmed_at
        if age_seconds >= self._staleness_seconds_max:
            raise FactsStale(
                "policy and facts were not confirmed as current within "
                f"{self._staleness_seconds_max:g} s",
                age_seconds=age_seconds,
                bound_seconds=self._staleness_seconds_max,
            )
        if snapshot.number < self._cell.oldest:
            raise FactsStale("a barrier ended all answers from before a change")

    def _catch_up_and_read(self, read: Callable[[Reader], T]) -> tuple[Snapshot, T]:
        with self._catch_up_lock:
            asked_at = time.monotonic()
            with self._store.read() as reader:
                self._registration.require(reader.connection)
                self._catch_up(reader, asked_at)
                return self._cell.current, read(reader)

    async def _reach(self, revision: int) -> None:
        if not await self.await_revision(revision):
            seen = self.revision
            raise RevisionNotReached(
                f"revision {revision} is not reached: this process is at {seen}",
                wanted=revision,
                seen=seen,
            )

    # --- polling --------------------------------------------------------------------------------

    def _deregister(self) -> None:
        # This process answers no more; subscribers may, until their leases end.
        time.sleep(max(0.0, self._history.leases.end() - time.monotonic()))
        self._registration.leave()

    def _poll(self) -> float:
        """Polls once and applies the changes. Returns the seconds until the next poll."""
        poll = self._polls.begin()
        self._registration.refresh()
        with self._catch_up_lock:
            asked_at = time.monotonic()
            with self._registration.poll() as result:
                if not self._confirm(result.state, asked_at):
                    allow_long_statements(result.connection)
                    self._catch_up(Reader(result.connection), asked_at)
        self._polls.done(poll, self.revision)
        return self._acknowledge(result)

    def _acknowledge(self, result: PollResult) -> float:
        """If a barrier waits for a revision, records that this replica has passed it, once it has.
        Returns the seconds until the next poll."""
        state = result.state
        target = min(state.barrier, state.revision)
        if result.acknowledged >= target:
            return self._poll_seconds
        with self._catch_up_lock:
            leases = self._history.leases
            settled = leases.settled()
            if settled < target:
                return min(self._poll_seconds, max(0.0, leases.end(target) - time.monotonic()))
            # First: an evaluation that still runs on an older snapshot will be refused.
            self._cell.retire()
            with suppress(DatabaseUnavailable):  # the next poll tries again
                self._registration.acknowledge(settled, self._cell.current.epoch)
        return self._poll_seconds

    def _confirm(self, state: State, asked_at: float) -> bool:
        """Confirms the snapshot if it is the newest. The caller holds `_catch_up_lock`."""
        current = self._cell.current if self._cell.loaded else None
        if current and current.epoch == state.epoch and current.revision == state.revision:
            current.confirmed_at = asked_at
            return True
        return False

    def _catch_up(self, reader: Reader, asked_at: float) -> None:
        """Applies the revisions since the snapshot. The caller holds `_catch_up_lock`."""
        revision, epoch = reader.revision, reader.epoch
        if self._confirm(reader.state, asked_at):
            return
        current = self._cell.current if self._cell.loaded else None
        behind = revision - current.revision if current else 0
        if current and current.epoch == epoch and 0 < behind <= REVISIONS_TO_FOLLOW_MAX:
            found = reader.changes(current.revision)
            changes = [change for revision_changes in found.values() for change in revision_changes]
            # Every commit records changes: a revision without them was pruned.
            if len(found) == behind and EVERYTHING not in changes:
                policy = read_policy_changes(reader, current.policy, changes)
                self._cell.advance(policy, revision, changes, asked_at)
                # Only now: a subscriber that then sends a check gets an answer from these changes.
                self._history.publish(found)
                return
        if current and (current.epoch != epoch or behind < 0):
            log.warning("epoch_changed", before=current.epoch, after=epoch, revision=revision)
        # First load, a new epoch, an earlier revision, or too many changes.
        policy = read_policy(reader)
        # The history first: a subscriber must not confirm the old one by the new snapshot.
        self._history.restart(epoch, revision)
        self._cell.restart(policy, revision, epoch, asked_at)


def _all_keys(
    user_id: str, organization_id: str | None, resources: Sequence[Resource | None]
) -> FactKeys:
    keys = FactKeys({user_id}, set() if organization_id is None else {organization_id})
    for resource in resources:
        if resource is not None:
            keys.resources.add((resource.type, resource.id))
            if resource.parent is not None:
                keys.resources.add((resource.parent.type, resource.parent.id))
    return keys
