"""Brings checkpoints to places that an intruder on this machine cannot change."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import structlog

from pdp.audit.segments import make_directory, sync_directory, write_all
from pdp.audit.transparency.notes import (
    NOTE_BYTES_MAX,
    NoteError,
    unverified_checkpoint,
)
from pdp.concurrency.background import BackgroundTask
from pdp.errors import AuditUnavailable, PdpError
from pdp.outgoing import open_client

SEND_SECONDS_MAX: Final = 5.0
RETRY_SECONDS: Final = (1.0, 60.0)
STOP_SECONDS_MAX: Final = 5.0
ANSWER_BYTES_MAX: Final = 64 << 10
_HEADERS: Final = {"content-type": "text/plain; charset=utf-8"}

_log = structlog.get_logger(__name__)


class Publisher:
    """Sends checkpoints to one destination, in a thread of its own, and retries.

    Of each tree only the newest checkpoint waits: it includes the older ones.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[str, Path], None],
        last: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """Creates the publisher; `start` starts it.

        Args:
            name: The destination, for logs.
            send: Sends a note of the tree in a directory. Raises AuditUnavailable.
            last: Returns the last note of a tree at the destination, if it can be read back.
        """
        self.name: Final = name
        self.last: Final = last
        self._send = send
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[str, Path]] = {}
        self._task = BackgroundTask(
            "audit-publisher",
            self._send_all,
            retry_seconds=RETRY_SECONDS,
            log=_log.bind(destination=name),
            failed="audit_checkpoint_not_published",
        )

    def start(self) -> None:
        """Starts to send."""
        self._task.start()

    def stop(self) -> None:
        """Sends what waits, if the destination has worked so far, and stops."""
        if not self._task.stop(STOP_SECONDS_MAX) or self.fails():
            return
        try:
            self._send_all()
        except PdpError as error:
            _log.warning("audit_checkpoint_not_published", destination=self.name, error=str(error))

    def offer(self, origin: str, note: str, tree: Path) -> None:
        """Queues the newest checkpoint of a tree."""
        with self._lock:
            self._waiting[origin] = note, tree
        self._task.wake()

    def fails(self) -> bool:
        """Returns whether the destination refused, or did not answer, the last time."""
        return self._task.problem is not None

    def waiting(self) -> int:
        """Returns the number of trees whose newest checkpoint is not published."""
        return len(self._waiting)

    def _send_all(self) -> None:
        with self._lock:
            waiting = list(self._waiting.items())
        problem: AuditUnavailable | None = None
        for origin, offered in waiting:
            try:
                self._send(*offered)
            except AuditUnavailable as error:
                if self._task.stopping:
                    raise
                problem = problem or error  # other trees may be welcome
                continue
            with self._lock:
                if self._waiting.get(origin) == offered:
                    del self._waiting[origin]
        if problem is not None:
            raise problem


def file_publisher(directory: Path) -> Publisher:
    """Returns a publisher that appends to a file for each tree: JSON lines with a note each."""

    def send(note: str, _: Path) -> None:
        path = _file_of(directory, unverified_checkpoint(note).origin)
        try:
            if _last_note(path) == note:
                return
            make_directory(directory)
            line = json.dumps({"checkpoint": note}).encode("ascii") + b"\n"
            if not _ends_with_line(path):
                line = b"\n" + line  # after a line that a crash cut off
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o644)
            try:
                write_all(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_directory(directory)
        except OSError as error:
            raise AuditUnavailable(f"{directory}: {error.strerror}") from None

    return Publisher(str(directory), send, lambda origin: last_published(directory, origin))


def last_published(directory: Path, origin: str) -> str | None:
    """Returns the last note of a tree in a directory of checkpoints; None: there is none."""
    return _last_note(_file_of(directory, origin))


def url_publisher(url: str) -> Publisher:
    """Returns a publisher that sends each note as the body of a POST."""

    def send(note: str, _: Path) -> None:
        try:
            with open_client(seconds_max=SEND_SECONDS_MAX, bytes_max=ANSWER_BYTES_MAX) as client:
                answer = client.post(url, content=note.encode(), headers=_HEADERS)
        except (httpx.HTTPError, OSError) as error:
            raise AuditUnavailable(f"{url}: {type(error).__name__}") from None
        if not answer.is_success:
            raise AuditUnavailable(f"{url}: status {answer.status_code}")

    return Publisher(url, send)


def _file_of(directory: Path, origin: str) -> Path:
    return directory / f"{origin.replace('/', '~')}.jsonl"


def _ends_with_line(path: Path) -> bool:
    """Returns whether a file is missing, empty, or ends with a whole line. Raises OSError."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"
    except FileNotFoundError:
        return True
    except OSError:  # nothing is before the end
        return path.stat().st_size == 0


def _last_note(path: Path) -> str | None:
    """Returns the last note of a file; None: there is no file, or no line that can be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4 * NOTE_BYTES_MAX))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            note = json.loads(line)["checkpoint"]
            unverified_checkpoint(note)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, NoteError):
            continue  # a line that a crash cut off
        return str(note)
    return None
