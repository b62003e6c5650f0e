"""Writes files that survive a crash."""

import os
from pathlib import Path

from pdp.audit.segments import sync_directory


def replace_file(path: Path, content: bytes) -> None:
    """Replaces a file durably and atomically. Raises OSError."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    sync_file(new)
    new.rename(path)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Syncs the content of a file. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
