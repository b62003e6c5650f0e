"""`pdp clerk doctor`: is this set up right, and why is this token refused?"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pdp.clerk.doctor import examine
from pdp.cli.output import say, say_marked
from pdp.clock import wall_clock
from pdp.settings import Settings

_STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}


def doctor(
    token: Annotated[
        str | None,
        typer.Option(
            envvar="PDP_TOKEN",
            help="A session token to judge; - reads it from a pipe.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
) -> None:
    """Checks the configuration from end to end. Exit status 1 where something failed."""
    settings = Settings.load(config)
    if token == "-":  # noqa: S105
        token = sys.stdin.read()
    counts = dict.fromkeys(_STYLES, 0)
    for finding in examine(settings, token.strip() if token is not None else None, wall_clock):
        mark = finding.verdict.value
        counts[mark] += 1
        advice = f" -> {finding.advice}" if finding.advice else ""
        say_marked(mark, _STYLES[mark], f"{finding.subject}: {finding.said}{advice}")
    say(", ".join(f"{number} {mark}" for mark, number in counts.items()))
    raise typer.Exit(1 if counts["failed"] else 0)
