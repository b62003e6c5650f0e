"""Holds the database against Clerk's Backend API, and makes the facts follow.

What a page shows is written in one transaction together with how far the sync has come. A sync that
broke off is gone on with there, by whichever process comes next.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pdp.clerk.api import ClerkApi, OrganizationsOff, open_api
from pdp.clerk.directory import Directory
from pdp.clerk.observations import Difference
from pdp.clerk.sync.lease import LEASE_SECONDS, NotOurTurn, Place, Turn
from pdp.clerk.sync.phases import STEPS, Seen, Sources
from pdp.clock import Clock, wall_clock
from pdp.errors import DatabaseUnavailable
from pdp.facts import Store
from pdp.settings import ClerkSettings


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sync has come in one of its steps."""

    step: str
    done: int
    total: int | None
    """None: not known."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a complete sync came to."""

    run: int
    drift: int
    """How many differences there were, since it began, in whatever process."""


class Sync:
    """One sync in this process.

    `pause` sleeps; before each request for no time. What it raises breaks the sync off.
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
        self._turn: Turn | None = None
        self._told: set[Difference] = set()

    def run(self, *, when_due: bool = False, dry_run: bool = False) -> Summary:
        """Reads everything. With `when_due` only if a sync is due; a dry run changes no fact.

        Raises ClerkUnavailable, ClerkRefused and DatabaseUnavailable; NotOurTurn (see `lease`);
        ValueError where the settings do not say which instance to read, and with which key.
        """
        with open_api(self._settings, self._wait) as api:
            interval = self._settings.reconcile_seconds
            turn = Turn(self._store, self._clock, interval, when_due=when_due, dry_run=dry_run)
            self._turn = turn
            try:
                self._read_all(api, turn, dry_run)
                turn.end()
            except BaseException:
                with contextlib.suppress(NotOurTurn, DatabaseUnavailable):
                    turn.give_back()
                raise
        return Summary(turn.run, turn.place.drift)

    def _read_all(self, api: ClerkApi, turn: Turn, dry_run: bool) -> None:
        sources = Sources(
            api, self._store, self._clock, turn.run, int(self._clock() * 1000), self._hold
        )
        step = turn.step if turn.step in STEPS else next(iter(STEPS))
        while step:
            seen, place = _read(step, sources, turn.place)
            self._on_progress(Progress(step, place.done, place.total))
            following = step
            if not place.cursor:
                following = _FOLLOWING[step]
                place = Place(place.last, drift=place.drift)
            turn.hold()  # it may have been long since the request
            state = turn.state_at(following or step, place)
            observed = self._directory.observe(seen, run=turn.run, progress=state, dry_run=dry_run)
            turn.reached(state, self._tell(observed.differences, step, dry_run))
            step = following

    def _tell(self, differences: Sequence[Difference], step: str, dry_run: bool) -> int:
        """Tells of those that were not told of yet; how many."""
        if dry_run and "memberships" not in step:
            # They go with their user or organization, but not yet: they are found again.
            differences = [one for one in differences if one.kind != "membership"]
        # Pages overlap, and a dry run leaves everything as it is.
        new = [one for one in differences if one not in self._told]
        self._told = set(differences)
        for one in new:
            self._on_difference(one)
        return len(new)

    def _hold(self) -> None:
        self._pause(0)
        if self._turn is not None:
            self._turn.hold()

    def _wait(self, seconds: float) -> None:
        """As long as Clerk wants; the others must not believe meanwhile that this one died."""
        while seconds > 0:
            part = min(seconds, LEASE_SECONDS / 4)
            self._pause(part)
            self._hold()
            seconds -= part


def _read(step: str, sources: Sources, place: Place) -> Seen:
    try:
        return STEPS[step](sources, place)
    except OrganizationsOff:
        # They may be on again tomorrow: nothing of them has gone.
        return (), replace(place, cursor="")


_FOLLOWING = dict(pairwise([*STEPS, ""]))
