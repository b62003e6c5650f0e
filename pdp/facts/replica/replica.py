"""Serves policy and facts at one revision from memory, and follows the changes.

What is in memory is answered without suspending; a bounded pool of threads reads the rest. One
thread polls the database. Nothing per user is loaded at start. Freshness has a bound: each answer
is checked, after it was made, against the moment at which its revision was last confirmed to be the
newest. A row in the database lets writers at a barrier know of this replica.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import structlog

from pdp.concurrency.background import BackgroundTask
from pdp.concurrency.waiting import done_within
from pdp.database.engine import take_time
from pdp.decision import Policy
from pdp.errors import (
    DatabaseUnavailable,
    FactsStale,
    RevisionNotReached,
)
from pdp.facts.replica.change_feed import History, Watch
from pdp.facts.replica.lookup import Look
from pdp.facts.replica.registration import Registration, Standing
from pdp.facts.replica.snapshot import Snapshot, SnapshotCell
from pdp.facts.replica.survey import Survey
from pdp.facts.replica.view import View
from pdp.facts.store.changelog import EVERYTHING
from pdp.facts.store.loader import (
    Claim,
    Gathered,
    Wanted,
    gather,
    read_policy,
    read_policy_changes,
)
from pdp.facts.store.state import State
from pdp.facts.store.store import Reader, Store
from pdp.gauges import Gauges
from pdp.model import Resource

log = structlog.get_logger(__name__)

T = TypeVar("T")

CATCH_UP_SECONDS_MAX = 1.0
ATTEMPTS_MAX = 3
READERS_MAX = 8
READS_QUEUED_MAX = 256
LOAD_WAIT_SECONDS_MAX = 10.0
RETRY_SECONDS_MAX = 0.2
"""After a look that failed: the connection may have been dead, and the database be there."""
REVISIONS_TO_FOLLOW_MAX = 1_000
"""Further behind, everything is read again."""


@dataclass(frozen=True, slots=True, eq=False)
class _PollWaiter:
    """Waits until so many polls are done, or a revision is served."""

    polls: int
    revision: float
    done: "Future[None]"


class Replica:
    """The facts of one process. Thread-safe. Start it after a fork, not before."""

    def __init__(self, store: Store, *, staleness_seconds_max: float, poll_seconds: float) -> None:
        self._store = store
        self._staleness_seconds_max = staleness_seconds_max
        self._poll_seconds = poll_seconds
        self._cell = SnapshotCell()
        self._history = History()
        self._registration = Registration(store.engine, staleness_seconds_max)
        self._loading: dict[Claim, Future[None]] = {}
        self._loading_lock = threading.Lock()
        self._one_catches_up = threading.Lock()
        self._readers = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="facts-reader")
        self._reads_queued = 0
        self._polls_lock = threading.Lock()
        self._polls_begun = 0
        self._poll_waiters: list[_PollWaiter] = []
        retry_seconds = min(poll_seconds, RETRY_SECONDS_MAX)
        self._task = BackgroundTask(
            "replica",
            self._turn,
            retry_seconds=(retry_seconds, retry_seconds),
            log=log,
            failed="facts_not_followed",
            on_recovered=lambda: log.info("facts_followed_again", revision=self.revision),
            at_end=self._leave,
        )

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to follow the database; returns at once. See `ready`."""
        self._task.start()

    def stop(self) -> None:
        """Ends the follower. To be called when nothing is answered any more."""
        self._task.stop(LOAD_WAIT_SECONDS_MAX)
        self._readers.shutdown(wait=False, cancel_futures=True)

    def poke(self) -> None:
        """Something was written: catch up now instead of at the next poll."""
        self._task.wake()

    @property
    def problem(self) -> str | None:
        """Why the database could not be followed the last time; None: it was."""
        return self._task.problem

    def ready(self) -> bool:
        """Whether policy and facts are loaded and confirmed within the bound."""
        return self.staleness_seconds() < self._staleness_seconds_max

    def staleness_seconds(self) -> float:
        """Time since the served revision was last confirmed as the newest; infinite at first."""
        if not self._cell.loaded:
            return float("inf")
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
        """The policy that is served. Raises FactsStale before the first load."""
        return self._cell.current.policy

    @property
    def snapshot(self) -> Snapshot:
        """What is served. Raises FactsStale before the first load."""
        return self._cell.current

    @property
    def revision(self) -> int:
        """The revision that is served; 0 before the first load."""
        return self._cell.current.revision if self._cell.loaded else 0

    async def await_revision(self, revision: int) -> bool:
        """Whether this process serves this revision or a later one; waits for a second at most."""
        if self.revision < revision:
            # A poll that begins now sees whatever was committed before: one is enough.
            await self._await_poll(revision)
        return self.revision >= revision

    # --- reading --------------------------------------------------------------------------------

    async def view(
        self,
        user_id: str,
        organization_id: str | None,
        resources: Sequence[Resource | None],
        at_least_revision: int = 0,
    ) -> View:
        """All that decisions about one actor need, at one revision.

        Suspends only if something is not in memory, or `at_least_revision` is not served yet.

        What is stored about a resource wins over what the request says: its organization and
        parent whole, its attributes one by one.

        Raises:
            FactsStale: the newest revision is not known within the bound.
            RevisionNotReached: `at_least_revision` is later than what the database holds, or was
                not seen within a second.
            DatabaseUnavailable: what is not in memory cannot be read.
            BrokenReference: the ancestors of a resource go in a circle or deeper than
                RESOURCE_DEPTH_MAX. What is above would be unknown, so there is no answer.
            InvalidRequest: an identifier cannot be stored.
        """
        if at_least_revision and at_least_revision > self.revision:
            await self._reach(at_least_revision)

        def look(snapshot: Snapshot, gathered: Gathered | None) -> View | Wanted:
            self.require_fresh(snapshot)
            found = Look(snapshot, gathered)
            user = found.user(user_id)
            organization = found.organization(organization_id)
            chains = [found.chain(resource) for resource in resources]
            if found.wanted is not None:
                return found.wanted
            return View(snapshot.policy, user, organization, chains, snapshot.revision, snapshot)

        gathered: Gathered | None = None
        for _ in range(ATTEMPTS_MAX):
            view = look(self._cell.current, gathered)
            if isinstance(view, View):
                return view
            gathered = await self._load(view) or gathered
            if gathered is not None and not self._cell.current.is_at(gathered):
                await self._await_poll()
        # What is wanted changes faster than two transactions can agree: one transaction for all.
        wanted = _all_wanted(user_id, organization_id, resources)
        caught_up = self._submit(
            lambda: self._catch_up_and_read(lambda reader: gather(reader, wanted))
        )
        view = look(*await _outcome(caught_up))
        if isinstance(view, View):
            return view
        raise DatabaseUnavailable("the facts changed faster than they could be read")

    async def survey(self, read: Callable[[Survey], T], at_least_revision: int = 0) -> T:
        """What `read` returns, called in a thread of the pool with a transaction that is at the
        revision that is served.

        Raises what `view` raises, and what `read` raises.
        """
        if at_least_revision > self.revision:
            await self._reach(at_least_revision)

        def attempt() -> Survey | tuple[T]:
            with self._store.read() as reader:
                survey = Survey(reader, self._cell.current)
                return (read(survey),) if survey.agrees else survey

        for _ in range(ATTEMPTS_MAX):
            done = await _outcome(self._submit(attempt))
            if isinstance(done, tuple):
                return done[0]
            await self.await_revision(done.revision)
        # It changes faster than is polled: nothing is applied while this is read.
        _, found = await _outcome(
            self._submit(
                lambda: self._catch_up_and_read(
                    lambda reader: read(Survey(reader, self._cell.current))
                )
            )
        )
        return found

    def confirm(self, view: View) -> None:
        """Called after the evaluation: that what the answer stands on is still within the bound.

        It is the view's own revision that counts: a pause during which the process caught up with
        the world does not make the answer newer.

        Raises:
            FactsStale: it is not.
        """
        self.require_fresh(view.snapshot)

    # --- watching -------------------------------------------------------------------------------

    def watch(self, epoch: str, after_revision: int) -> Watch:
        """What changed after a revision, to be asked for again and again. No epoch: from now on."""
        if after_revision > self.revision:
            self.poke()
        return Watch(self._cell, self._history, self._staleness_seconds_max, epoch, after_revision)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Has `listener` called when there may be news to watches. It must not wait."""
        self._history.listen(listener)

    def require_fresh(self, snapshot: Snapshot) -> None:
        """Raises FactsStale where nothing is to be answered from it any more."""
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

    async def _load(self, wanted: Wanted) -> Gathered | None:
        """Reads what nobody is reading already, and waits for what others read."""
        done: Future[None] = Future()
        others: set[Future[None]] = set()
        mine: list[Claim] = []
        with self._loading_lock:
            for claim in wanted.claims():
                busy = self._loading.setdefault(claim, done)
                if busy is done:
                    mine.append(claim)
                else:
                    others.add(busy)

        def read_mine() -> Gathered:
            # In the thread, to the end: others wait for it even if the caller is cancelled.
            try:
                with self._store.read() as reader:
                    gathered = gather(reader, Wanted.of(mine))
                self._cell.fill(gathered)
                return gathered
            finally:
                self._loaded(mine, done)

        gathered = None
        if mine:
            try:
                reading = self._submit(read_mine)
            except DatabaseUnavailable:
                self._loaded(mine, done)
                raise
            gathered = await _outcome(reading)
        for other in others:
            await done_within(other, LOAD_WAIT_SECONDS_MAX)
        return gathered

    def _loaded(self, claims: Sequence[Claim], done: "Future[None]") -> None:
        with self._loading_lock:
            for claim in claims:
                del self._loading[claim]
        done.set_result(None)

    def _submit(self, read: Callable[[], T]) -> "Future[T]":
        """Starts a read in the pool. Raises DatabaseUnavailable if too many wait there."""
        with self._loading_lock:
            if self._reads_queued >= READS_QUEUED_MAX:
                raise DatabaseUnavailable("too many requests wait for the database")
            self._reads_queued += 1

        def run() -> T:
            try:
                return read()
            finally:
                with self._loading_lock:
                    self._reads_queued -= 1

        return self._readers.submit(run)

    def _catch_up_and_read(self, read: Callable[[Reader], T]) -> tuple[Snapshot, T]:
        with self._one_catches_up:
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

    async def _await_poll(self, revision: float = float("inf")) -> None:
        """Waits until a poll that begins from now on is done, or this revision is served, or a
        second has passed."""
        done: Future[None] = Future()
        with self._polls_lock:
            waiter = _PollWaiter(self._polls_begun + 1, revision, done)
            self._poll_waiters.append(waiter)
        self._task.wake()
        try:
            await done_within(done, CATCH_UP_SECONDS_MAX)
        finally:
            with self._polls_lock, suppress(ValueError):
                self._poll_waiters.remove(waiter)

    def _poll_done(self, poll: int) -> None:
        with self._polls_lock:
            waiters = self._poll_waiters
            self._poll_waiters = []
            for waiter in waiters:
                if poll >= waiter.polls or self.revision >= waiter.revision:
                    waiter.done.set_result(None)
                else:
                    self._poll_waiters.append(waiter)

    # --- following ------------------------------------------------------------------------------

    def _leave(self) -> None:
        # Nobody answers any more; watchers may, for as long as their leases last.
        time.sleep(max(0.0, self._history.leases.end() - time.monotonic()))
        self._registration.leave()

    def _turn(self) -> float:
        """Looks once, and applies what it finds. Returns in how many seconds to look again."""
        with self._polls_lock:
            self._polls_begun += 1
            poll = self._polls_begun
        self._registration.refresh()
        with self._one_catches_up:
            asked_at = time.monotonic()
            with self._registration.look() as standing:
                if not self._confirm(standing.state, asked_at):
                    take_time(standing.connection)
                    self._catch_up(Reader(standing.connection), asked_at)
        self._poll_done(poll)
        return self._acknowledge(standing)

    def _acknowledge(self, standing: Standing) -> float:
        """Where somebody waits to hear that this replica is past a revision: says so, if it is.
        Returns in how many seconds to look again."""
        state = standing.state
        wanted = min(state.barrier, state.revision)
        if standing.acknowledged >= wanted:
            return self._poll_seconds
        with self._one_catches_up:
            leases = self._history.leases
            settled = leases.settled()
            if settled < wanted:
                return min(self._poll_seconds, max(0.0, leases.end(wanted) - time.monotonic()))
            # First of all: who is still at an answer from before will not give it.
            self._cell.retire()
            with suppress(DatabaseUnavailable):  # or at the next poll, which finds it unsaid
                self._registration.acknowledge(settled, self._cell.current.epoch)
        return self._poll_seconds

    def _confirm(self, state: State, asked_at: float) -> bool:
        """Notes that what is served is the newest, if it is. The caller holds `_one_catches_up`."""
        current = self._cell.current if self._cell.loaded else None
        if current and current.epoch == state.epoch and current.revision == state.revision:
            current.confirmed_at = asked_at
            return True
        return False

    def _catch_up(self, reader: Reader, asked_at: float) -> None:
        """Applies what was committed since. The caller holds `_one_catches_up`."""
        revision, epoch = reader.revision, reader.epoch
        if self._confirm(reader.state, asked_at):
            return
        current = self._cell.current if self._cell.loaded else None
        behind = revision - current.revision if current else 0
        if current and current.epoch == epoch and 0 < behind <= REVISIONS_TO_FOLLOW_MAX:
            found = reader.changes(current.revision)
            changes = [change for some in found.values() for change in some]
            # Every commit names what it touched: a revision without changes was pruned.
            if len(found) == behind and EVERYTHING not in changes:
                policy = read_policy_changes(reader, current.policy, changes)
                self._cell.advance(policy, revision, changes, asked_at)
                # Told only now: who then asks is answered from what they were told.
                self._history.publish(found)
                return
        if current and (current.epoch != epoch or behind < 0):
            log.warning("epoch_changed", before=current.epoch, after=epoch, revision=revision)
        # The first time, another epoch, a revision from the past, or too much to tell.
        policy = read_policy(reader)
        # Forgotten before: who confirms by the new snapshot knows that there is a new history.
        self._history.restart(epoch, revision)
        self._cell.restart(policy, revision, epoch, asked_at)


async def _outcome(reading: "Future[T]") -> T:
    if not await done_within(reading, LOAD_WAIT_SECONDS_MAX):
        raise DatabaseUnavailable("the database did not answer in time")
    return reading.result()


def _all_wanted(
    user_id: str, organization_id: str | None, resources: Sequence[Resource | None]
) -> Wanted:
    wanted = Wanted({user_id}, set() if organization_id is None else {organization_id})
    for asked in resources:
        if asked is not None:
            wanted.resources.add((asked.type, asked.id))
            if asked.parent is not None:
                wanted.resources.add((asked.parent.type, asked.parent.id))
    return wanted
