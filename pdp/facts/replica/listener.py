"""Listens for PostgreSQL's notifications of writes, so that a replica polls at once.

They are hints only. If one is lost or late, or a connection pooler refuses LISTEN, the next poll
finds the change.
"""

from collections.abc import Callable

import structlog
from sqlalchemy import Engine

from pdp.concurrency.background import BackgroundTask
from pdp.database.engine import listening
from pdp.facts.store.changelog import CHANNEL

log = structlog.get_logger(__name__)

SPACING_SECONDS = 0.02
"""Pause between two calls: writes in quick succession cause one call."""
WAIT_SECONDS = 0.2
"""How long `stop` may go unnoticed."""
RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 2.0


class Listener:
    """Calls `changed` after each write of any process, and after each (re)connection.

    Does nothing on SQLite. Start it after a fork, not before.
    """

    def __init__(self, engine: Engine, changed: Callable[[], None]) -> None:
        self._engine = engine
        self._changed = changed
        self._task = BackgroundTask(
            "listener",
            self._listen,
            retry_seconds=(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX),
            log=log,
            failed="not_listening",
            on_recovered=lambda: log.info("listening_again"),
        )

    def start(self) -> None:
        """Starts to listen; returns at once, even if the database is not reachable."""
        if self._engine.dialect.name == "postgresql":
            self._task.start()

    def stop(self) -> None:
        """Stops within STOP_SECONDS_MAX."""
        self._task.stop(STOP_SECONDS_MAX)

    def _listen(self) -> float:
        """Listens until the connection is lost or the task is stopped."""
        with listening(self._engine, CHANNEL) as announced:
            self._task.works()
            self._changed()
            while not self._task.stopping:
                if announced(WAIT_SECONDS):
                    self._changed()
                    self._task.sleep(SPACING_SECONDS)
        return 0
