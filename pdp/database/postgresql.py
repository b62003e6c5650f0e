"""Opens PostgreSQL databases."""

import time
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event

from pdp.database.timeouts import (
    CONNECT_SECONDS_MAX,
    POOL_CONNECTIONS_MAX,
    SILENCE_SECONDS_MAX,
    STATEMENT_SECONDS_MAX,
)


class _Connection(psycopg.Connection[Any]):
    """A connection that closes if the server is silent for `silence_seconds_max`.

    The network may be cut, or a proxy may acknowledge everything and forward nothing.
    """

    silence_seconds_max: float = SILENCE_SECONDS_MAX

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        ends_at = time.monotonic() + self.silence_seconds_max
        try:
            return super().wait(gen, interval, self.silence_seconds_max)
        except psycopg.OperationalError:
            if time.monotonic() >= ends_at:
                self.pgconn.finish()
            raise


def open_postgresql(url: URL) -> Engine:
    """Opens a database; connects when first used."""
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args={
            "connect_timeout": CONNECT_SECONDS_MAX,
            "client_encoding": "utf8",
            "application_name": "pdp",
            # Of several hosts, the primary: a standby may lag by any time.
            "target_session_attrs": "read-write",
            # A server that vanished must not block a thread for minutes.
            "tcp_user_timeout": STATEMENT_SECONDS_MAX * 1000,
            "keepalives_idle": STATEMENT_SECONDS_MAX,
            "keepalives_interval": 1,
            "keepalives_count": STATEMENT_SECONDS_MAX,
        },
        pool_size=POOL_CONNECTIONS_MAX,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS_MAX,
    )

    def connected(connection: psycopg.Connection, _record: object) -> None:
        # By statements: connection poolers refuse startup options. Outside a transaction: a
        # rollback would undo them.
        connection.autocommit = True
        connection.execute(f"SET statement_timeout = {STATEMENT_SECONDS_MAX * 1000}")
        connection.execute("SET idle_in_transaction_session_timeout = '60s'")
        connection.autocommit = False

    # Otherwise connections would have the driver's own class.
    engine.dialect.connect = _Connection.connect  # type: ignore[method-assign,assignment]
    event.listen(engine, "connect", connected)
    return engine


def set_silence_limit(connection: Connection, seconds: float) -> None:
    """Sets after how long a silent server is gone. Does nothing on SQLite."""
    driver: object = connection.connection.dbapi_connection
    if isinstance(driver, _Connection):
        driver.silence_seconds_max = seconds
