"""Pushes a user's role names to Clerk soon after their grants have changed.

Each process pushes its own writes. A push that is lost because a process ended, or that is due
because a grant began or expired by time, is found by the next sweep over all users
(`Pusher.sweep`).
"""

import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import structlog
from cachetools import LRUCache

from pdp.clerk.api import ClerkApi, open_api
from pdp.clerk.role_claims import (
    PAGE_USERS,
    Claim,
    Outcome,
    find_differences,
    read_claim,
    write_claim,
)
from pdp.clock import Clock
from pdp.concurrency.background import BackgroundTask
from pdp.errors import ClerkError, ClerkUnavailable, DatabaseUnavailable
from pdp.facts import ChangeKind, Store
from pdp.settings import ClerkSettings

log = structlog.get_logger("pdp.clerk")

REVISIONS_MAX = 10_000
USERS_MAX = 100_000
UNCONFIRMED_MAX = 10_000
SPACING_SECONDS = 1.0
"""Between two pushes of one user: Clerk takes 10 changes of a user's metadata in 10 s."""
RETRY_SECONDS = 10.0
STOP_SECONDS_MAX = 2.0


class Pusher:
    """Pushes the claims that differ, of users whose grants changed. Thread-safe.

    `notify` and `sweep` never wait for Clerk or the database.
    """

    def __init__(self, settings: ClerkSettings, store: Store, *, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._revisions: set[int] = set()
        self._revisions_lock = threading.Lock()
        self._sweep_wanted = threading.Event()
        self._task = BackgroundTask(
            "claims",
            self._push_all,
            retry_seconds=(RETRY_SECONDS, RETRY_SECONDS),
            log=log,
            failed="claims_not_pushed",
        )
        # From here on used by the thread only. A user is queued once, however often they change:
        # the claim is read right before it is pushed.
        self._waiting: set[str] = set()
        self._queue: list[tuple[float, str]] = []
        """(not before, on the monotonic clock; user id), a heap."""
        self._pages: Iterator[tuple[int, Sequence[Claim]]] | None = None
        """The remaining pages of the running sweep."""
        self._pushed_at: OrderedDict[str, float] = OrderedDict()
        self._unconfirmed: LRUCache[str, object] = LRUCache(UNCONFIRMED_MAX)
        """Claims that were written and not reported by Clerk yet: newer than the stored ones."""

    def start(self) -> None:
        """Starts the thread. Neither Clerk nor the database needs to be reachable."""
        self._task.start()

    def stop(self) -> None:
        """Ends within STOP_SECONDS_MAX; queued users are left to the next sweep."""
        self._task.stop(STOP_SECONDS_MAX)

    def notify(self, revision: int) -> None:
        """Reports that a revision was committed."""
        with self._revisions_lock:
            has_room = len(self._revisions) < REVISIONS_MAX
            if has_room:
                self._revisions.add(revision)
        if not has_room:
            self._defer_to_sweep(revision=revision, why="too many changes wait")
        self._task.wake()

    def sweep(self) -> None:
        """Requests a check of all users; changes are pushed in between."""
        self._sweep_wanted.set()
        self._task.wake()

    # --- the thread -------------------------------------------------------------------------------

    def _push_all(self) -> float:
        with open_api(self._settings, self._task.sleep) as api:
            self._task.works()
            while not self._task.stopping:
                self._run_once(api)
        return 0

    def _run_once(self, api: ClerkApi) -> None:
        """Reads committed changes; then pushes one user, or reads the next page, or waits."""
        self._read_changes()
        seconds = self._queue[0][0] - time.monotonic() if self._queue else None
        if seconds is not None and seconds <= 0:
            user_id = heapq.heappop(self._queue)[1]
            self._waiting.discard(user_id)
            self._push(api, user_id)
        elif len(self._waiting) > USERS_MAX - PAGE_USERS or not self._continue_sweep():
            self._task.wait(seconds)

    def _read_changes(self) -> None:
        with self._revisions_lock:
            revisions, self._revisions = self._revisions, set()
        if not revisions:
            return
        try:
            with self._store.read() as reader:
                found = reader.changes(min(revisions) - 1)
        except DatabaseUnavailable:
            with self._revisions_lock:
                self._revisions |= revisions
            raise
        for revision in revisions:
            for change in found.get(revision, ()):
                if change.kind is ChangeKind.USER:
                    self._enqueue(change.key[0])
                elif change.kind is ChangeKind.EVERYTHING:
                    self._defer_to_sweep(revision=revision, why="it touched too much to tell")

    def _continue_sweep(self) -> bool:
        """Queues the users of the next page; False if no sweep is requested."""
        if self._pages is None:
            if not self._sweep_wanted.is_set():
                return False
            self._sweep_wanted.clear()
            self._pages = find_differences(self._store, self._clock)
        try:
            page = next(self._pages, None)
        except DatabaseUnavailable:
            self._pages = None
            self._sweep_wanted.set()
            raise
        if page is None:
            self._pages = None
        else:
            for claim in page[1]:
                self._unconfirmed.pop(claim.user_id, None)  # perhaps Clerk never reports it
                self._enqueue(claim.user_id)
        return True

    def _enqueue(self, user_id: str, seconds: float = 0) -> None:
        if user_id in self._waiting:
            return
        if len(self._waiting) >= USERS_MAX:
            self._defer_to_sweep(user=user_id, why="too many users wait")
            return
        pushed_at = self._pushed_at.get(user_id, -SPACING_SECONDS)
        due_at = max(time.monotonic() + seconds, pushed_at + SPACING_SECONDS)
        self._waiting.add(user_id)
        heapq.heappush(self._queue, (due_at, user_id))

    def _push(self, api: ClerkApi, user_id: str) -> None:
        try:
            self._write(api, user_id)
        except (ClerkUnavailable, DatabaseUnavailable) as error:
            log.warning("claims_not_pushed", user=user_id, error=error.message)
            self._enqueue(user_id, RETRY_SECONDS)
        except ClerkError as error:
            # A retry would be refused again: wait for the next change, or the next sweep.
            log.warning("claims_refused", user=user_id, error=error.message)

    def _write(self, api: ClerkApi, user_id: str) -> None:
        claim = read_claim(self._store, user_id, self._clock)
        if claim is None:
            return
        if self._unconfirmed.get(user_id) == claim.stored:
            del self._unconfirmed[user_id]
        if claim.wanted == self._unconfirmed.get(user_id, claim.stored):
            return
        outcome = write_claim(api, claim)
        if outcome is Outcome.WRITTEN:
            self._unconfirmed[user_id] = claim.wanted
        self._note_push(user_id)
        log.debug("claims_pushed", user=user_id, outcome=outcome.value)

    def _note_push(self, user_id: str) -> None:
        now = time.monotonic()
        self._pushed_at[user_id] = now
        self._pushed_at.move_to_end(user_id)
        while next(iter(self._pushed_at.values())) < now - SPACING_SECONDS:
            self._pushed_at.popitem(last=False)

    def _defer_to_sweep(self, **what: object) -> None:
        log.warning("claims_left_to_a_sweep", **what)
        self.sweep()
