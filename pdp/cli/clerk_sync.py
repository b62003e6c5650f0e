"""`pdp clerk sync`."""

import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.entities import Reason
from pdp.cli.options import Config
from pdp.cli.output import progress_bars, say, show_table
from pdp.cli.policy import command_author

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from pdp.clerk.observations import Difference
    from pdp.clerk.sync.sync import Progress

ROWS_MAX = 1_000
"""How many differences are printed; all are counted."""


def sync(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the drift and change no fact.")
    ] = False,
    reason: Reason = "",
    config: Config = None,
) -> None:
    """Makes the database follow the Clerk account.

    Reads users, organizations, memberships and roles from Clerk's Backend API.
    If it is interrupted, a run within an hour continues there.

    Exit status: 0 it is done; 1 with --dry-run: something differs; 2 it failed.
    """
    from dataclasses import replace

    from pdp.administration_records import Source
    from pdp.clerk.directory import Directory
    from pdp.clerk.sync.sync import Sync
    from pdp.cli.database import open_store
    from pdp.clock import wall_clock
    from pdp.process.logs import configure_logs
    from pdp.settings import Settings

    settings = Settings.load(config)
    configure_logs(settings.log_level, settings.log_format)
    store = open_store(settings, create=not dry_run)
    # Left as an exit, not as a death: then the next one need not wait for this one's lease.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    notes = _Notes()
    with progress_bars() as bars:
        summary = Sync(
            settings.clerk,
            store,
            Directory(
                store,
                lambda _: None,
                default_role=settings.clerk.default_role,
                author=replace(command_author(reason), source=Source.CLERK_SYNC),
            ),
            clock=wall_clock,
            on_progress=_Shown(bars),
            on_difference=notes,
        ).run(dry_run=dry_run)
    notes.say(rows=dry_run)
    if not summary.drift:
        say("no differences; the database is equal to the Clerk account")
    elif dry_run:
        say(f"{summary.drift} differences; nothing was changed")
        raise typer.Exit(1)
    else:
        say(f"{summary.drift} differences healed")


class _Notes:
    """The differences: each counted, the first of them as a table."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._rows: list[tuple[str, str, str]] = []

    def __call__(self, difference: "Difference") -> None:
        self._counts[difference.kind, difference.drift.value] += 1
        if len(self._rows) < ROWS_MAX:
            self._rows.append((difference.kind, difference.id, difference.drift.value))

    def say(self, *, rows: bool) -> None:
        if rows and self._rows:
            show_table(("kind", "id", "drift"), self._rows, heading=True)
            more = self._counts.total() - len(self._rows)
            if more:
                say(f"and {more} more")
        for (kind, drift), count in sorted(self._counts.items()):
            say(f"{kind} {drift}: {count}")


class _Shown:
    """A bar for each phase."""

    def __init__(self, bars: "Bars") -> None:
        self._bars = bars
        self._phases: dict[str, TaskID] = {}

    def __call__(self, progress: "Progress") -> None:
        if progress.phase not in self._phases:
            self._phases[progress.phase] = self._bars.add_task(progress.phase)
        total = progress.total or progress.done
        done = min(progress.done, total)
        self._bars.update(self._phases[progress.phase], completed=done, total=total)
