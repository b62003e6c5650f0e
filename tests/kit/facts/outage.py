"""An outage of a database."""

import psycopg
from sqlalchemy import make_url


class Outage:
    """Makes one database of the server unreachable, and reachable again."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url).set(drivername="postgresql")
        assert parsed.database is not None
        self._name = parsed.database
        self._url = parsed.set(database="postgres").render_as_string(hide_password=False)

    def begin(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{self._name}" WITH ALLOW_CONNECTIONS false')
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (self._name,),
            )

    def end(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{self._name}" WITH ALLOW_CONNECTIONS true')
