"""The migrations of the schema (Alembic). Every revision follows *expand, then contract*: the
version before it and the version after it both run on the new schema.

In: an engine. Out: a database with every table of `facts` and `audit`.
"""

from pathlib import Path

from sqlalchemy import Engine, inspect, text

from pdp.database.engine import begin_read, open_engine


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
    if _revision_of(database) == _newest_revision():
        return
    # Alembic takes 0.1 s to load, and most starts have nothing to migrate.
    from pdp.database.migrations.upgrade import upgrade  # noqa: PLC0415

    upgrade(database)


def schema_problem(engine: Engine) -> str | None:
    """Returns why this version cannot work on the database; None: it can.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        return "the file is not there yet"  # to connect would create it
    newest, found = _newest_revision(), _revision_of(engine)
    if found == newest:
        return None
    return f"its schema is {found or 'not there yet'}, and this version works on {newest}"


def _revision_of(engine: Engine) -> str | None:
    with begin_read(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return revision


def _newest_revision() -> str:
    """That of the last file: `rev_0014_search_by_time.py` is revision 0014."""
    versions = Path(__file__).parent / "versions"
    return max(file.name for file in versions.glob("rev_*.py")).split("_")[1]
