"""Locks on files, and whether a file that is open is still the one of its name."""

import fcntl
import os
import time
from pathlib import Path
from typing import Final

LOCK_NAME: Final = "lock"
"""Of the file in an origin's directory that its process has locked."""


def take_lock(directory: Path, seconds_max: float) -> int | None:
    """Takes an origin for this process; None where another one keeps it. Close to give it back.

    Waits a little: a shipper takes the origin of a process that is gone for a moment at a time.
    Raises OSError.
    """
    descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds_max
    while not lock(descriptor):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            return None
        time.sleep(0.02)
    return descriptor


def lock(descriptor: int) -> bool:
    """Locks an open file for as long as it is open; False if another process has. Raises OSError.

    A recorder locks its live segment too: the lock file may be deleted by a cleaner, and then
    another process could take the log of a living one.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_named(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that `path` names. Raises OSError."""
    try:
        found = path.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(found, os.fstat(descriptor))
