"""The durable cursor: up to which record everything is delivered."""

import fcntl
import json
import os
from pathlib import Path
from typing import Self

from pdp.audit.segments import sync_directory


class CursorFile:
    """A cursor in a file, for one process at a time. Replaced atomically, and synced."""

    def __init__(self, path: Path) -> None:
        """Creates it; `open` locks it."""
        self._path = path
        self._lock: int | None = None

    def open(self) -> Self:
        """Locks the cursor. Raises OSError, also if another process has locked it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock = os.open(self._path.with_name(f"{self._path.name}.lock"), flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise OSError(f"{self._path}: another process forwards with this cursor") from None
        return self

    def close(self) -> None:
        """Unlocks the cursor."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self) -> str | None:
        """Returns the cursor; None: there is none yet.

        Raises:
            ValueError: The file does not hold a cursor.
            OSError: It cannot be read.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            cursor = json.loads(content)["cursor"]
        except (ValueError, TypeError, KeyError):
            cursor = None
        if not isinstance(cursor, str):
            raise ValueError(f"{self._path}: not a cursor; delete it to begin again")  # noqa: TRY004  # of the content
        return cursor

    def write(self, cursor: str) -> None:
        """Replaces the cursor. Raises OSError."""
        new = self._path.with_name(f"{self._path.name}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, json.dumps({"cursor": cursor}).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        new.replace(self._path)
        sync_directory(self._path.parent)
