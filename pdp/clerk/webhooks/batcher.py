"""The webhook batcher: messages that wait for the database are written in one transaction.

The database takes one writer at a time, and a transaction costs almost the same for one message as
for many. A single message is written at once.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from pdp.clerk.observations import Message, Observed
from pdp.errors import DatabaseUnavailable, RequestError

MESSAGES_MAX = 64
"""Per transaction."""
WAIT_SECONDS_MAX = 3.0

_Entry = tuple[Message, "Future[Observed]"]


class Batcher:
    """Writes messages in batches. Thread-safe: one waiting thread writes for all of them."""

    def __init__(self, write: Callable[[Sequence[Message]], Sequence[Observed]]) -> None:
        self._write = write
        self._waiting: deque[_Entry] = deque()
        self._writing = threading.Lock()

    def write(self, message: Message) -> Observed:
        """Writes a message and returns its result after the commit.

        Raises:
            DatabaseUnavailable: The message may or may not have been written.
            RequestError: This message cannot be stored.
        """
        entry: _Entry = (message, Future())
        self._waiting.append(entry)
        if not self._writing.acquire(timeout=WAIT_SECONDS_MAX):
            entry[1].cancel()
            raise DatabaseUnavailable("too many messages wait for the database")
        try:
            while not entry[1].done():
                self._write_waiting()
        finally:
            self._writing.release()
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
            # One of them cannot be stored; the others must be.
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
