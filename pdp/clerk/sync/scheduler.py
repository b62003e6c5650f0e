"""The periodic sync of a serving process, and the deletion of old rows.

Of all processes on one database, one syncs at a time (`lease`). All of them report the result of
the last complete sync, also one of `pdp clerk sync`.
"""

import time
from collections.abc import Callable

import structlog

from pdp.clerk.directory import Directory
from pdp.clerk.sync.lease import LastSync, LeaseNotHeld, is_due, read_last_sync
from pdp.clerk.sync.sync import Sync
from pdp.clock import Clock
from pdp.concurrency.background import BackgroundTask
from pdp.errors import ClerkError, DatabaseUnavailable, ShuttingDown
from pdp.facts import Store
from pdp.facts.store.clerk_objects import delete_expired
from pdp.gauges import Gauges
from pdp.settings import ClerkSettings

log = structlog.get_logger("pdp.clerk")

CHECK_SECONDS = 5.0
"""How often the process checks whether a sync is due, and reads the last result."""
RETRY_SECONDS = 60.0
"""Before this process retries a failed sync."""
FORGET_EVERY_SECONDS = 3600.0
KEEP_SECONDS = 30 * 86_400.0
"""How long handled messages and revoked sessions are kept. Clerk retries a message for 28 hours,
and later on request."""
DAY_SECONDS = 86_400.0
STOP_SECONDS_MAX = 2.0


class Reconciler:
    """A thread that syncs every `settings.reconcile_seconds` (0: never) and deletes old rows.

    A revoked session is kept for longer than any of its tokens is valid. `on_synced` is called
    after each complete sync of this process; it must not block.
    """

    def __init__(
        self,
        settings: ClerkSettings,
        store: Store,
        directory: Directory,
        *,
        clock: Clock,
        token_lifetime_seconds_max: float,
        on_synced: Callable[[], object] = lambda: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._directory = directory
        self._clock = clock
        self._on_synced = on_synced
        self._keep_seconds = max(KEEP_SECONDS, token_lifetime_seconds_max + DAY_SECONDS)
        self._last = LastSync()
        self._failures = 0
        self._forget_at = self._retry_at = -float("inf")  # by the monotonic clock
        self._check_seconds = min(CHECK_SECONDS, settings.reconcile_seconds or CHECK_SECONDS)
        self._task = BackgroundTask(
            "clerk",
            self._run_once,
            retry_seconds=(self._check_seconds, self._check_seconds),
            log=log,
            failed="clerk_reconciler_fails",
        )

    def start(self) -> None:
        """Starts the thread. Neither Clerk nor the database needs to be reachable."""
        self._task.start()

    def stop(self) -> None:
        """Ends before the next request or transaction, within STOP_SECONDS_MAX."""
        self._task.stop(STOP_SECONDS_MAX)

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "pdp_clerk_drift": (
                "Differences that the last complete sync with Clerk found.",
                self.drift,
            ),
            "pdp_clerk_reconciled_timestamp_seconds": (
                "When the last complete sync with Clerk ended; 0: never.",
                self.reconciled_at,
            ),
            "pdp_clerk_sync_failures": ("Syncs with Clerk that failed.", self.failures),
        }

    def drift(self) -> float:
        """How many differences the last complete sync found."""
        return self._last.drift

    def reconciled_at(self) -> float:
        """When that ended, in Unix seconds; 0: never."""
        return self._last.ended_at

    def failures(self) -> float:
        """How many syncs have failed in this process."""
        return self._failures

    def _run_once(self) -> float:
        self._forget()
        self._check()
        return self._check_seconds

    def _check(self) -> None:
        state, self._last = read_last_sync(self._store)
        interval = self._settings.reconcile_seconds
        due = interval and is_due(state, self._clock(), interval)
        if due and time.monotonic() >= self._retry_at:
            self._sync()
            _, self._last = read_last_sync(self._store)

    def _sync(self) -> None:
        sync = Sync(
            self._settings,
            self._store,
            self._directory,
            clock=self._clock,
            pause=self._task.sleep,
        )
        began = time.monotonic()
        self._retry_at = began + min(RETRY_SECONDS, self._settings.reconcile_seconds)
        try:
            summary = sync.run(when_due=True)
        except (ShuttingDown, LeaseNotHeld):
            return
        except (ClerkError, DatabaseUnavailable) as error:
            self._failures += 1
            log.warning("clerk_sync_failed", error=error.message)
            return
        self._retry_at = -float("inf")
        self._on_synced()
        seconds = round(time.monotonic() - began, 1)
        log.info("clerk_synced", run=summary.run, drift=summary.drift, seconds=seconds)

    def _forget(self) -> None:
        if time.monotonic() < self._forget_at:
            return
        with self._store.write() as transaction:
            dropped = delete_expired(transaction, self._clock() - self._keep_seconds)
        self._forget_at = time.monotonic() + FORGET_EVERY_SECONDS
        if dropped:
            log.info("forgotten", rows=dropped)
