"""The database that the settings name, for the commands that work on it; `pdp database`."""

from pathlib import Path
from typing import Annotated

import typer

from pdp.cli.output import say
from pdp.facts import Store, migrate, renew_epoch
from pdp.settings import DatabaseSettings
from pdp.sql import open_engine

app = typer.Typer(no_args_is_help=True, help="The database itself.")


def open_store(settings: DatabaseSettings) -> Store:
    """With the tables of this version where it is SQLite; PostgreSQL waits for `pdp migrate`.

    Raises ValueError for an URL of neither, and DatabaseUnavailable.
    """
    url = settings.database_url.get_secret_value()
    engine = open_engine(url)
    if url.startswith("sqlite"):
        migrate(engine)
    return Store(engine)


@app.command("renew-epoch")
def renew(
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
) -> None:
    """After a restore from a backup: has everybody drop what they remember of the time since.

    Run it before the first process serves from the restored database.
    """
    renew_epoch(open_store(DatabaseSettings.load(config)).engine)
    say("the epoch is a new one: what was remembered of another history is dropped")
