"""How long the machine kept processes waiting, so that bounds of time can allow for it.

Linux counts, for each thread, how long it was ready to run and was not run: the second number of
`/proc/PID/task/TID/schedstat`, in nanoseconds. On an idle machine that is next to nothing, so a
bound is as strict as it is written; on a busy one it grows by what the test lost. It does not grow
while a process sleeps, hangs, is stopped or works: a fault in what is tested uses up its bound.
Where there is no such file nothing is allowed for.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path

STRETCH_MAX = 10
"""A bound never becomes more than so many times as long."""


class Stopwatch:
    """Measures time, less what the machine kept this process and the given ones waiting.

    Of each process the thread that waited longest counts: others may have waited at the same time.
    """

    def __init__(self, pids: Iterable[int] = ()) -> None:
        self._pids = (os.getpid(), *pids)
        self._waited = [waited_seconds(pid) for pid in self._pids]
        self._began = time.monotonic()

    @property
    def stalled(self) -> float:
        """Seconds that were lost. A thread that has ended takes its share along."""
        return sum(
            max((seconds - before.get(thread, 0.0) for thread, seconds in now.items()), default=0.0)
            for now, before in zip(map(waited_seconds, self._pids), self._waited, strict=True)
        )

    @property
    def seconds(self) -> float:
        """Seconds since the start that were not lost; of the whole time at least a tenth."""
        elapsed = time.monotonic() - self._began
        return max(elapsed - self.stalled, elapsed / STRETCH_MAX)


def waited_seconds(pid: int) -> dict[str, float]:
    """How long each thread of a process has waited for a processor."""
    waited = {}
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            waited[file.parent.name] = int(file.read_text().split()[1]) / 1e9
        except (OSError, IndexError):  # the thread has ended
            continue
    return waited
