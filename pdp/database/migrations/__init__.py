"""The migrations of the schema (Alembic). Every revision follows *expand, then contract*: the
version before it and the version after it both run on the new schema.

In: an engine. Out: a database with every table of `facts` and `audit`.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from pdp.database.engine import begin_read, begin_write, extended_timeouts, open_engine


def migrate(database: Engine | str) -> None:
    """Migrates a database (an engine or a URL) to the newest revision of the schema.

    Processes that migrate at the same time wait for each other.

    Raises:
        DatabaseUnavailable: The database cannot be reached or does not answer in time.
        ValueError: The URL is not one that `pdp.database.engine.open_engine` knows.
        RuntimeError: A newer version of this program has migrated it.
    """
    if isinstance(database, str):
        engine = open_engine(database)
        try:
            migrate(engine)
        finally:
            engine.dispose()
        return
    config = _config()
    with begin_write(database) as connection:
        if connection.dialect.name == "postgresql":
            # SQLite's write lock is held already.
            connection.execute(text("SELECT pg_advisory_xact_lock(7165432198)"))
        found = MigrationContext.configure(connection).get_current_revision()
        scripts = ScriptDirectory.from_config(config)
        if found not in {None, *(script.revision for script in scripts.walk_revisions())}:
            raise RuntimeError(
                f"the database's schema is {found}, of a newer version than this one, which works "
                f"on {scripts.get_current_head()}"
            )
        config.attributes["connection"] = connection
        with extended_timeouts(connection):
            command.upgrade(config, "head")


def schema_problem(engine: Engine) -> str | None:
    """Returns why this version cannot work on the database; None: it can.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        return "the file is not there yet"  # to connect would create it
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    with begin_read(engine) as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found == newest:
        return None
    return f"its schema is {found or 'not there yet'}, and this version works on {newest}"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
