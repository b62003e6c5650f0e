"""The database that the settings name, for the commands that work on it."""

from pdp.facts import Store, migrate
from pdp.settings import DatabaseSettings
from pdp.sql import open_engine


def open_store(settings: DatabaseSettings) -> Store:
    """With the tables of this version where it is SQLite; PostgreSQL waits for `pdp migrate`.

    Raises ValueError for an URL of neither, and DatabaseUnavailable.
    """
    url = settings.database_url.get_secret_value()
    engine = open_engine(url)
    if url.startswith("sqlite"):
        migrate(engine)
    return Store(engine)
