"""Pushes a user's role names to Clerk soon after their grants have changed.

Each process pushes what it wrote itself. What is lost because a process ended, or because a grant
began or ran out by itself, is found by the next sweep over all users: see `Pusher.sweep`.
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
UNHEARD_MAX = 10_000
SPACING_SECONDS = 1.0
"""Between two pushes of one user: Clerk takes 10 changes of a user's metadata in 10 s."""
RETRY_SECONDS = 10.0
STOP_SECONDS_MAX = 2.0


class Pusher:
    """Writes what differs of the users that were touched. `tell` and `sweep` never wait for Clerk
    or the database, and may be called by any thread."""

    def __init__(self, settings: ClerkSettings, store: Store, *, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._told: set[int] = set()
        self._told_lock = threading.Lock()
        self._sweep_wanted = threading.Event()
        self._task = BackgroundTask(
            "claims",
            self._push_all,
            retry_seconds=(RETRY_SECONDS, RETRY_SECONDS),
            log=log,
            failed="claims_not_pushed",
        )
        # The thread's own from here on. A user waits once, whatever happens to them meanwhile: what
        # is to be written is read when their turn has come.
        self._waiting: set[str] = set()
        self._queue: list[tuple[float, str]] = []
        """(not before, on the monotonic clock; user id), a heap."""
        self._pages: Iterator[tuple[int, Sequence[Claim]]] | None = None
        """The rest of the sweep that is under way."""
        self._pushed_at: OrderedDict[str, float] = OrderedDict()
        self._unheard: LRUCache[str, object] = LRUCache(UNHEARD_MAX)
        """What was written and has not come back from Clerk yet: newer than the mirror."""

    def start(self) -> None:
        """Pushes from now on. Neither Clerk nor the database need be in reach."""
        self._task.start()

    def stop(self) -> None:
        """Ends within STOP_SECONDS_MAX; what waits is left to the next sweep."""
        self._task.stop(STOP_SECONDS_MAX)

    def tell(self, revision: int) -> None:
        """A revision was committed."""
        with self._told_lock:
            has_room = len(self._told) < REVISIONS_MAX
            if has_room:
                self._told.add(revision)
        if not has_room:
            self._lose(revision=revision, why="too many changes wait")
        self._task.wake()

    def sweep(self) -> None:
        """Looks at all users, beside what else is to be done."""
        self._sweep_wanted.set()
        self._task.wake()

    # --- the thread -------------------------------------------------------------------------------

    def _push_all(self) -> float:
        with open_api(self._settings, self._task.sleep) as api:
            self._task.works()
            while not self._task.stopping:
                self._turn(api)
        return 0

    def _turn(self, api: ClerkApi) -> None:
        """Takes up what was told; then pushes one user, or sweeps on, or waits."""
        self._take_up()
        seconds = self._queue[0][0] - time.monotonic() if self._queue else None
        if seconds is not None and seconds <= 0:
            user_id = heapq.heappop(self._queue)[1]
            self._waiting.discard(user_id)
            self._push(api, user_id)
        elif len(self._waiting) > USERS_MAX - PAGE_USERS or not self._sweep_on():
            self._task.wait(seconds)

    def _take_up(self) -> None:
        with self._told_lock:
            told, self._told = self._told, set()
        if not told:
            return
        try:
            with self._store.read() as reader:
                found = reader.changes(min(told) - 1)
        except DatabaseUnavailable:
            with self._told_lock:
                self._told |= told
            raise
        for revision in told:
            for change in found.get(revision, ()):
                if change.kind is ChangeKind.USER:
                    self._let_wait(change.key[0])
                elif change.kind is ChangeKind.EVERYTHING:
                    self._lose(revision=revision, why="it touched too much to tell")

    def _sweep_on(self) -> bool:
        """Takes up the next page of a sweep; False where none is wanted."""
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
                self._unheard.pop(claim.user_id, None)  # perhaps it never comes
                self._let_wait(claim.user_id)
        return True

    def _let_wait(self, user_id: str, seconds: float = 0) -> None:
        if user_id in self._waiting:
            return
        if len(self._waiting) >= USERS_MAX:
            self._lose(user=user_id, why="too many users wait")
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
            self._let_wait(user_id, RETRY_SECONDS)
        except ClerkError as error:
            # To try again would be refused again: until the next change, or the next sweep.
            log.warning("claims_refused", user=user_id, error=error.message)

    def _write(self, api: ClerkApi, user_id: str) -> None:
        claim = read_claim(self._store, user_id, self._clock)
        if claim is None:
            return
        if self._unheard.get(user_id) == claim.mirrored:
            del self._unheard[user_id]
        if claim.wanted == self._unheard.get(user_id, claim.mirrored):
            return
        outcome = write_claim(api, claim)
        if outcome is Outcome.WRITTEN:
            self._unheard[user_id] = claim.wanted
        self._note_time_of_push(user_id)
        log.debug("claims_pushed", user=user_id, outcome=outcome.value)

    def _note_time_of_push(self, user_id: str) -> None:
        now = time.monotonic()
        self._pushed_at[user_id] = now
        self._pushed_at.move_to_end(user_id)
        while next(iter(self._pushed_at.values())) < now - SPACING_SECONDS:
            self._pushed_at.popitem(last=False)

    def _lose(self, **what: object) -> None:
        log.warning("claims_left_to_a_sweep", **what)
        self.sweep()
