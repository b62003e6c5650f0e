"""Hears from PostgreSQL that somebody wrote, so that a replica need not wait for its next poll.

A hint and no more: what is lost, late or refused (connection poolers may) is found by the poll.
"""

import random
import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy import Engine

from pdp.database.engine import listening
from pdp.errors import DatabaseUnavailable
from pdp.facts.store.changelog import CHANNEL

log = structlog.get_logger(__name__)

SPACING_SECONDS = 0.02
"""Between two calls: many writes at once are one."""
WAIT_SECONDS = 0.2
"""How late the end of the process may be noticed."""
RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 2.0


class Listener:
    """Calls `changed` after each write of any process, and whenever it begins to listen (again).

    Does nothing on SQLite. Start it after a fork, not before.
    """

    def __init__(self, engine: Engine, changed: Callable[[], None]) -> None:
        self._engine = engine
        self._changed = changed
        self._retry_seconds = RETRY_SECONDS_MIN
        self._failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    def start(self) -> None:
        """Begins to listen; returns at once. The database need not be in reach."""
        if self._engine.dialect.name == "postgresql":
            self._thread.start()

    def stop(self) -> None:
        """Ends within STOP_SECONDS_MAX."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._listen()
            except DatabaseUnavailable as error:
                if not self._failing:
                    log.warning("not_listening", error=error.message)
                self._failing = True
            except Exception:
                # A bug here must not end the thread unseen.
                log.exception("not_listening")
                self._failing = True
            if time.monotonic() - began > RETRY_SECONDS_MAX:
                self._retry_seconds = RETRY_SECONDS_MIN
            # Processes that lost the database together must not come back together.
            self._stopping.wait(self._retry_seconds * random.uniform(0.5, 1))  # noqa: S311
            self._retry_seconds = min(2 * self._retry_seconds, RETRY_SECONDS_MAX)

    def _listen(self) -> None:
        with listening(self._engine, CHANNEL) as announced:
            if self._failing:
                log.info("listening_again")
            self._failing = False
            self._changed()
            while not self._stopping.is_set():
                if announced(WAIT_SECONDS):
                    self._changed()
                    self._stopping.wait(SPACING_SECONDS)
