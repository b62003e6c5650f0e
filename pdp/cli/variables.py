"""Misspelled variables: servers do not start with them, other commands warn."""

import os

import typer

from pdp.cli.output import fail, warn


def require_known_variables() -> None:
    """Ends the command with status 2 if a `PDP_*` variable is set that nothing reads."""
    from pdp.settings import variable_problems

    problems = variable_problems()
    for problem in problems:
        fail(problem)
    if problems:
        raise typer.Exit(2)


_OF_CLIENTS = frozenset(
    f"PDP_{name}"
    for name in (
        *("SERVER", "API_KEY", "CA_FILE", "CERTIFICATE_FILE", "KEY_FILE", "TOKEN", "CONTEXT"),
    )
)


def warn_of_unknown_variables() -> None:
    """Warns on standard error, and continues."""
    names = {name for name in os.environ if name.startswith("PDP_")}  # noqa: TID251
    if names <= _OF_CLIENTS or "_PDP_COMPLETE" in os.environ:  # noqa: TID251
        return  # the settings take long to import, and a shell that completes shows no warnings
    from pdp.settings import variable_problems

    for problem in variable_problems():
        warn(problem)
