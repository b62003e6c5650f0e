"""The database that the settings name, for the commands that work on it; `pdp database`."""

from typing import TYPE_CHECKING

import typer

from pdp.cli.options import Config
from pdp.cli.output import HELP_STYLE, note, say

if TYPE_CHECKING:
    from pdp.facts import Store
    from pdp.settings import DatabaseSettings

app = typer.Typer(no_args_is_help=True, rich_markup_mode=HELP_STYLE, help="The database itself.")


def open_store(settings: "DatabaseSettings", *, create: bool = True) -> "Store":
    """Opens the database and says on standard error which it is. SQLite is brought to the tables of
    this version; PostgreSQL waits for `pdp migrate`. Without `create` nothing is made or migrated.

    Raises ValueError for a URL of neither, or without `create` if a file or tables are missing;
    DatabaseUnavailable.
    """
    import structlog

    from pdp.database.engine import database_name, open_engine
    from pdp.database.migrations import schema_problem
    from pdp.facts import Store, migrate
    from pdp.process.logs import configure_logs

    if not structlog.is_configured():  # else log lines go to standard output, maybe a document
        configure_logs("warning", "console")
    url = settings.database_url.get_secret_value()
    engine = open_engine(url)
    note(f"database {database_name(url)}")
    if not create:
        problem = schema_problem(engine)
        if problem is not None:
            raise ValueError(f"{problem}; `pdp migrate` makes it, this command makes nothing")
    elif url.startswith("sqlite"):
        migrate(engine)
    return Store(engine)


@app.command("renew-epoch")
def renew(
    config: Config = None,
) -> None:
    """After a restore from a backup: has everybody drop what they remember of the time since.

    Run it before the first process serves from the restored database.
    """
    from pdp.facts import renew_epoch
    from pdp.settings import DatabaseSettings

    renew_epoch(open_store(DatabaseSettings.load(config)).engine)
    say("the epoch is a new one: what was remembered of another history is dropped")
