"""Locks files, and checks whether an open file still has its name."""

import fcntl
import os
import time
from pathlib import Path
from typing import Final

LOCK_NAME: Final = "lock"
"""Name of the file in an origin's directory that the process locks."""


def take_lock(directory: Path, seconds_max: float) -> int | None:
    """Locks an origin for this process.

    Waits up to `seconds_max`: a shipper locks the origin of an ended process for short times.

    Returns:
        A descriptor, to close for the release; None: another process holds the lock.

    Raises:
        OSError: The lock file cannot be opened.
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
    """Locks an open file until it is closed; False: another process holds it. Raises OSError.

    A recorder locks its current segment too. Otherwise, if a cleaner deletes the lock file, another
    process could take the log of a running one.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_named(descriptor: int, path: Path) -> bool:
    """Returns whether `path` names an open file. Raises OSError."""
    try:
        found = path.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(found, os.fstat(descriptor))
