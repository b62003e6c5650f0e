"""Misspelled variables: servers do not start with them, other commands warn."""

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


def warn_of_unknown_variables() -> None:
    """Says so on standard error, and goes on."""
    from pdp.settings import variable_problems

    for problem in variable_problems():
        warn(problem)
