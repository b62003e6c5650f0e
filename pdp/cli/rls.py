"""`pdp rls`: the policy as row-level security of PostgreSQL."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.output import HELP_STYLE, emit, say, say_marked

if TYPE_CHECKING:
    from pdp.rls.config import Config

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=HELP_STYLE, help="Row-level security in PostgreSQL."
)

_ConfigFile = Annotated[
    Path, typer.Option("--config", help="rls.yaml: which table is which resource type.")
]
_Settings = Annotated[Path | None, typer.Option("--settings", help="TOML file of settings.")]


@app.command("generate")
def generate(config: _ConfigFile, settings: _Settings = None) -> None:
    """Writes one SQL migration to standard output, from the policy and tables of the database.

    Changes nothing. Generate and apply again after each change of rules, roles or columns; grants,
    users and memberships are read when a statement runs.
    """
    from pdp.cli.database import open_store
    from pdp.rls.deployment import generate as generated
    from pdp.settings import DatabaseSettings

    store = open_store(DatabaseSettings.load(settings), create=False)
    emit(generated(store, _read(config)).text)


@app.command("verify")
def verify(config: _ConfigFile, settings: _Settings = None) -> None:
    """Checks that the database still enforces the policy. Exit status 1 if it does not."""
    from pdp.cli.database import open_store
    from pdp.rls.deployment import verify as verified
    from pdp.settings import DatabaseSettings

    store = open_store(DatabaseSettings.load(settings), create=False)
    found = verified(store, _read(config))
    for problem in found:
        say_marked("failed", "red", f"{problem.subject}: {problem.message} -> {problem.advice}")
    if found:
        raise typer.Exit(1)
    say("the database enforces the policy as it is now")


def _read(file: Path) -> "Config":
    from pdp.rls.config import parse_config

    return parse_config(file.read_text(encoding="utf-8"))
