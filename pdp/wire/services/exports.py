"""StreamExport: a policy document of any size, in messages of a bounded size.

A thread renders the whole document before the first part is sent. Otherwise an error of the
database could end a stream halfway, and half a document deletes the other half when it is applied.
Also, no transaction is open while a client reads.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from pdpapi.v1 import administration_service_pb2 as pb

from pdp.administrator import Administrator
from pdp.errors import Overloaded
from pdp.limits import MESSAGE_BYTES_MAX
from pdp.wire.callers import Caller
from pdp.wire.methods import StreamMethod

EXPORTS_MAX: Final = 2
"""How many documents a process has in memory at the same time."""
_PART_CHARACTERS: Final = 64 * 1024
"""A message that the client does not read within a second ends the stream, so parts are small."""
_PARTS_AT_ONCE: Final = 16


class Exports:
    """The exports that are running."""

    def __init__(self, administrator: Administrator, service: str) -> None:
        self._administrator = administrator
        self._service = service
        self._free = threading.BoundedSemaphore(EXPORTS_MAX)
        self._wakes: list[Callable[[], None]] = []

    def method(self) -> StreamMethod:
        """The method of PolicyAdministrationService."""
        return StreamMethod(
            self._service,
            "StreamExport",
            "administer",
            pb.StreamExportRequest,
            self._open,
            self._wakes.append,
            MESSAGE_BYTES_MAX,
        )

    def _open(self, request: pb.StreamExportRequest, _: Caller) -> "_Export":
        sections = self._administrator.check_sections(request.sections)
        if not self._free.acquire(blocking=False):
            raise Overloaded("concurrent_exports_max", EXPORTS_MAX)
        return _Export(lambda: self._administrator.export(sections), self._wake, self._free.release)

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()


class _Export:
    """The `Subscription` of one export."""

    due_at = math.inf

    def __init__(
        self,
        render: Callable[[], tuple[str, int]],
        wake: Callable[[], None],
        release: Callable[[], None],
    ) -> None:
        self._render = render
        self._wake = wake
        self._release = release
        self._lock = threading.Lock()
        self._users = 2
        """The rendering thread and the stream: the last one to end calls `release`."""
        self._rendered = False
        self._error: Exception | None = None
        self._parts: deque[bytes] = deque()
        threading.Thread(target=self._run, name="export", daemon=True).start()

    def take(self) -> Sequence[bytes] | None:
        """The next parts. Raises the error of rendering."""
        if not self._rendered:
            return ()
        if self._error is not None:
            raise self._error
        count = min(_PARTS_AT_ONCE, len(self._parts))
        return [self._parts.popleft() for _ in range(count)] or None

    def close(self) -> None:
        """Drops the remaining parts."""
        self._parts.clear()
        self._end()

    def _run(self) -> None:
        try:
            text, revision = self._render()
            self._parts.extend(
                pb.StreamExportResponse(
                    part=text[start : start + _PART_CHARACTERS], revision=revision
                ).SerializeToString()
                for start in range(0, len(text), _PART_CHARACTERS)
            )
        except Exception as error:  # noqa: BLE001  # raised where the stream is served
            self._error = error
        self._rendered = True
        self._end()
        self._wake()

    def _end(self) -> None:
        with self._lock:
            self._users -= 1
            last = not self._users
        if last:
            self._release()
