"""A file with rotation by size. A record counts as delivered once it is synced to the disk."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pdp.errors import DeliveryFailed
from pdp.siem.events import TEXT_CHARACTERS_MAX, Record
from pdp.siem.formats import Line

MODE: Final = 0o640
_TAIL_BYTES: Final = 1 << 16


class FileDestination:
    """Appends lines to `path`; a full file becomes `path.1`, the one before `path.2`, and so on.

    The file is opened for each batch, so another program may rename it too.
    """

    def __init__(self, path: Path, line: Line, *, rotate_bytes: int, files_max: int) -> None:
        """Creates the destination.

        Args:
            path: The file to append to.
            line: The format.
            rotate_bytes: A file of this size or more is rotated before the next batch.
            files_max: How many files there are, the current one included; older ones are deleted.
        """
        self._path = path
        self._line = line
        self._rotate_bytes = rotate_bytes
        self._files_max = files_max

    def deliver(self, records: Sequence[Record]) -> None:
        """See `Destination.deliver`."""
        line = self._line
        content = "".join(f"{line(record, TEXT_CHARACTERS_MAX)}\n" for record in records)
        try:
            self._append(content.encode())
        except OSError as error:
            raise DeliveryFailed(f"{self._path}: {error.strerror or error}") from None

    def _append(self, content: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size >= self._rotate_bytes:
                self._rotate()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, MODE)
        try:
            _cut_torn_line(descriptor)
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def _rotate(self) -> None:
        names = [self._path, *map(self._numbered, range(1, self._files_max))]
        for older, newer in zip(names[::-1], names[-2::-1], strict=False):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        if self._files_max == 1:
            self._path.unlink()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _cut_torn_line(descriptor: int) -> None:
    """Removes the part of a line that a killed process or a full disk left; it is sent again."""
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - _TAIL_BYTES)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
