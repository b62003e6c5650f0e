"""Compares the database with Clerk's Backend API, and corrects the facts.

The observations of a page are written in one transaction with the progress of the sync. An
interrupted sync resumes there, in whichever process takes the lease next.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pdp.clerk.api import ClerkApi, OrganizationsOff, open_api
from pdp.clerk.directory import Directory
from pdp.clerk.observations import Difference
from pdp.clerk.sync.lease import LEASE_SECONDS, Lease, LeaseNotHeld, Position
from pdp.clerk.sync.phases import PHASES, Seen, Sources
from pdp.clock import Clock, wall_clock
from pdp.errors import DatabaseUnavailable
from pdp.facts import Store
from pdp.settings import ClerkSettings


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a sync in one of its phases."""

    phase: str
    done: int
    total: int | None
    """None: not known."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a complete sync."""

    run: int
    drift: int
    """How many differences it found, in all processes that took part."""


class Sync:
    """One sync in this process.

    `pause` sleeps, before each request for 0 seconds. What it raises interrupts the sync.
    """

    def __init__(
        self,
        settings: ClerkSettings,
        store: Store,
        directory: Directory,
        *,
        clock: Clock = wall_clock,
        pause: Callable[[float], object] = time.sleep,
        on_progress: Callable[[Progress], object] = lambda _: None,
        on_difference: Callable[[Difference], object] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._directory = directory
        self._clock = clock
        self._pause = pause
        self._on_progress = on_progress
        self._on_difference = on_difference
        self._lease: Lease | None = None
        self._reported: set[Difference] = set()

    def run(self, *, when_due: bool = False, dry_run: bool = False) -> Summary:
        """Reads everything. With `when_due` only if a sync is due; a dry run changes no fact.

        Raises ClerkUnavailable, ClerkRefused and DatabaseUnavailable; LeaseNotHeld (see `lease`);
        ValueError where the settings do not say which instance to read, and with which key.
        """
        with open_api(self._settings, self._wait) as api:
            interval = self._settings.reconcile_seconds
            lease = Lease(self._store, self._clock, interval, when_due=when_due, dry_run=dry_run)
            self._lease = lease
            try:
                self._read_all(api, lease, dry_run)
                lease.end()
            except BaseException:
                with contextlib.suppress(LeaseNotHeld, DatabaseUnavailable):
                    lease.release()
                raise
        return Summary(lease.run, lease.position.drift)

    def _read_all(self, api: ClerkApi, lease: Lease, dry_run: bool) -> None:
        sources = Sources(
            api, self._store, self._clock, lease.run, int(self._clock() * 1000), self._renew
        )
        phase = lease.phase if lease.phase in PHASES else next(iter(PHASES))
        while phase:
            seen, position = _read(phase, sources, lease.position)
            self._on_progress(Progress(phase, position.done, position.total))
            next_phase = phase
            if not position.cursor:
                next_phase = _FOLLOWING[phase]
                position = Position(position.last, drift=position.drift)
            lease.renew()  # it may have been long since the request
            state = lease.state_at(next_phase or phase, position)
            observed = self._directory.observe(seen, run=lease.run, progress=state, dry_run=dry_run)
            lease.advance(state, self._report(observed.differences, phase, dry_run))
            phase = next_phase

    def _report(self, differences: Sequence[Difference], phase: str, dry_run: bool) -> int:
        """Reports the differences that were not reported yet. Returns their number."""
        if dry_run and "memberships" not in phase:
            # Deleted with their owner, but not in a dry run: a later phase finds them.
            differences = [
                difference for difference in differences if difference.kind != "membership"
            ]
        # Pages overlap, and a dry run corrects nothing.
        new = [difference for difference in differences if difference not in self._reported]
        self._reported = set(differences)
        for difference in new:
            self._on_difference(difference)
        return len(new)

    def _renew(self) -> None:
        self._pause(0)
        if self._lease is not None:
            self._lease.renew()

    def _wait(self, seconds: float) -> None:
        """Waits as long as Clerk demands, and keeps the lease meanwhile."""
        while seconds > 0:
            part = min(seconds, LEASE_SECONDS / 4)
            self._pause(part)
            self._renew()
            seconds -= part


def _read(phase: str, sources: Sources, position: Position) -> Seen:
    try:
        return PHASES[phase](sources, position)
    except OrganizationsOff:
        # They may be enabled again later: nothing counts as deleted.
        return (), replace(position, cursor="")


_FOLLOWING = dict(pairwise([*PHASES, ""]))
