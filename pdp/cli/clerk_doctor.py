"""`pdp clerk doctor`: is this set up right, and why is this token refused?"""

from pathlib import Path
from typing import Annotated

import typer

from pdp.cli.options import Config
from pdp.cli.output import read_input, say, say_marked

_STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}


def doctor(
    token: Annotated[
        str | None,
        typer.Option(
            envvar="PDP_TOKEN",
            help="A session token to judge; - reads standard input.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    rls: Annotated[
        Path | None, typer.Option(help="rls.yaml: check row-level security, too.")
    ] = None,
) -> None:
    """Checks the configuration from end to end. Exit status 1 where something failed."""
    from pdp.clock import wall_clock
    from pdp.doctor.checks import examine
    from pdp.process.logs import configure_logs
    from pdp.settings import Settings

    verified = None
    if rls is not None:
        from functools import partial

        from pdp.rls.config import parse_config
        from pdp.rls.deployment import verify

        verified = partial(verify, config=parse_config(rls.read_text(encoding="utf-8")))
    settings = Settings.load(config)
    configure_logs("error", "console")  # problems are printed as findings
    if token == "-":  # noqa: S105
        token = read_input("a session token")
    counts = dict.fromkeys(_STYLES, 0)
    stripped = token.strip() if token is not None else None
    for finding in examine(settings, stripped, wall_clock, verified):
        mark = finding.verdict.value
        counts[mark] += 1
        advice = f" -> {finding.advice}" if finding.advice else ""
        say_marked(mark, _STYLES[mark], f"{finding.subject}: {finding.message}{advice}")
    say(", ".join(f"{number} {mark}" for mark, number in counts.items()))
    raise typer.Exit(1 if counts["failed"] else 0)
