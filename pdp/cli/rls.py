"""`pdp rls`: the policy as row-level security of PostgreSQL."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.output import HELP_STYLE, emit

if TYPE_CHECKING:
    from pdp.rls.config import Config

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=HELP_STYLE, help="Row-level security in PostgreSQL."
)

_ConfigFile = Annotated[
    Path, typer.Option("--config", help="rls.yaml: which table is which resource type.")
]
_Settings = Annotated[Path | None, typer.Option("--settings", help="TOML file of settings.")]


@app.callback()
def _group() -> None:
    pass


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


def _read(file: Path) -> "Config":
    from pdp.rls.config import parse_config

    return parse_config(file.read_text(encoding="utf-8"))
