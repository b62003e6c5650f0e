"""`pdp clerk push-claims`: role names for user interfaces, into Clerk's `public_metadata`."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.options import Config
from pdp.cli.output import progress_bars, say

if TYPE_CHECKING:
    from rich.progress import Progress

    from pdp.clerk.role_claims import Outcome
    from pdp.facts import Store


def push_claims(
    user_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[USER_ID...]", help="Of these only.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what differs and write nothing.")
    ] = False,
    config: Config = None,
) -> None:
    """Writes each user's role names into public_metadata.pdp_roles at Clerk, where they differ."""
    from pdp.clerk.api import open_api
    from pdp.clerk.role_claims import push_users
    from pdp.cli.database import open_store
    from pdp.clock import wall_clock
    from pdp.process.logs import configure_logs
    from pdp.settings import Settings

    settings = Settings.load(config)
    configure_logs(settings.log_level, settings.log_format)
    store = open_store(settings, create=not dry_run)
    with progress_bars(lines=True) as bar:
        chosen = user_ids or _differing(store, bar)
        if dry_run:
            counts = _show(store, chosen)
        else:
            with open_api(settings.clerk, time.sleep) as api:
                counts = _told(push_users(api, store, chosen, wall_clock))
    text = ", ".join(f"{number} {outcome.value}" for outcome, number in counts.items())
    say((text or "nothing differs") + ("; nothing was written" if dry_run else ""))


def _differing(store: "Store", bar: "Progress") -> Iterator[str]:
    from pdp.clerk.role_claims import find_differences
    from pdp.clock import wall_clock
    from pdp.facts.store.user_grants import count_users

    with store.read() as reader:
        task = bar.add_task("users", total=count_users(reader))
    for looked_at, claims in find_differences(store, wall_clock):
        yield from (claim.user_id for claim in claims)
        bar.advance(task, looked_at)


def _told(pushed: "Iterable[tuple[str, Outcome]]") -> "Counter[Outcome]":
    counts: Counter[Outcome] = Counter()
    for user_id, outcome in pushed:
        say(f"{user_id}: {outcome.value}")
        counts[outcome] += 1
    return counts


def _show(store: "Store", user_ids: Iterable[str]) -> "Counter[Outcome]":
    from pdp.clerk.role_claims import Outcome, read_claim
    from pdp.clock import wall_clock

    counts: Counter[Outcome] = Counter()
    for user_id in user_ids:
        claim = read_claim(store, user_id, wall_clock)
        if claim is None:
            outcome, text = Outcome.UNKNOWN, Outcome.UNKNOWN.value
        elif claim.differs:
            outcome = Outcome.DIFFERENT
            text = f"{json.dumps(claim.stored)} -> {json.dumps(claim.wanted)}"
        else:
            outcome, text = Outcome.SAME, Outcome.SAME.value
        say(f"{user_id}: {text}")
        counts[outcome] += 1
    return counts
