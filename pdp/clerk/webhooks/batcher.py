"""Messages in a line before the database: those that wait are written together, in one transaction.

The database takes one writer at a time, and most of a transaction costs the same for one message as
for many. A lone message waits for nobody.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from pdp.clerk.observations import Message, Observed
from pdp.errors import DatabaseUnavailable, RequestError

MESSAGES_MAX = 64
"""In one transaction."""
WAIT_SECONDS_MAX = 3.0

_Entry = tuple[Message, "Future[Observed]"]


class Line:
    """Thread-safe. Who is first in the line writes for all who stand in it."""

    def __init__(self, write: Callable[[Sequence[Message]], Sequence[Observed]]) -> None:
        self._write = write
        self._waiting: deque[_Entry] = deque()
        self._turn = threading.Lock()

    def write(self, message: Message) -> Observed:
        """What came of a message, once it is committed.

        Raises DatabaseUnavailable, after which it may or may not have been written, and what else
        the writing of this message alone raises.
        """
        entry: _Entry = (message, Future())
        self._waiting.append(entry)
        if not self._turn.acquire(timeout=WAIT_SECONDS_MAX):
            entry[1].cancel()
            raise DatabaseUnavailable("too many messages wait for the database")
        try:
            while not entry[1].done():
                self._write_waiting()
        finally:
            self._turn.release()
        return entry[1].result()

    def _write_waiting(self) -> None:
        batch: list[_Entry] = []
        while self._waiting and len(batch) < MESSAGES_MAX:
            entry = self._waiting.popleft()
            if entry[1].set_running_or_notify_cancel():
                batch.append(entry)
        try:
            self._write_batch(batch)
        except BaseException as error:
            for _, outcome in batch:
                if not outcome.done():
                    outcome.set_exception(error)
            if not isinstance(error, Exception):
                raise

    def _write_batch(self, batch: Sequence[_Entry]) -> None:
        try:
            found = self._write([message for message, _ in batch])
        except RequestError:
            if len(batch) == 1:
                raise
            # One of them cannot be stored, which must not keep the others out.
            for entry in batch:
                self._write_alone(entry)
        else:
            for (_, outcome), observed in zip(batch, found, strict=True):
                outcome.set_result(observed)

    def _write_alone(self, entry: _Entry) -> None:
        message, outcome = entry
        try:
            outcome.set_result(self._write([message])[0])
        except RequestError as error:
            outcome.set_exception(error)
