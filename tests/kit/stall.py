"""How long the machine kept processes waiting, so that bounds of time can allow for it.

Linux counts, for each thread, how long it was ready to run and was not run: the second number of
`/proc/PID/task/TID/schedstat`, in nanoseconds. On an idle machine that is next to nothing, so a
bound is as strict as it is written; on a busy one it grows by what the test lost. The same is true
of time in which the disk kept some process of the machine waiting (`/proc/pressure/io`). A bound
does not grow while a process sleeps, hangs, is stopped or works: a fault in what is tested uses it
up. Where there are no such files nothing is allowed for.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator

STRETCH_MAX = 10
"""A bound never becomes more than so many times as long."""

_elsewhere: set[int] = set()


def include(pid: int) -> None:
    """Counts a process that is not below this one, with all below it: a daemon of the tests."""
    _elsewhere.add(pid)


class Stopwatch:
    """Measures time, less what the machine kept this process and those below it waiting.

    Of each process the thread that waited longest counts: others may have waited at the same time.
    """

    def __init__(self, pids: Iterable[int] | None = None) -> None:
        """`pids`: the processes that count; None: this one and those below it."""
        self._pids = pids
        self._waited = waited(pids)
        self._waited_for_disk = waited_for_disk()
        self._lost: dict[int, float] = {}
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def stalled(self) -> float:
        """Seconds that were lost. What has ended counts as it was when somebody last asked."""
        lost = self._lost
        for (pid, thread), seconds in waited(self._pids).items():
            more = seconds - self._waited.get((pid, thread), 0.0)
            lost[pid] = max(lost.get(pid, 0.0), more)
        return sum(lost.values()) + waited_for_disk() - self._waited_for_disk

    @property
    def seconds(self) -> float:
        """Seconds since the start that were not lost; of the whole time at least a tenth."""
        elapsed = self.elapsed
        return max(elapsed - self.stalled, elapsed / STRETCH_MAX)


def waited(pids: Iterable[int] | None = None) -> dict[tuple[int, str], float]:
    """How long each thread has waited for a processor: seconds, by process and thread. `pids`: of
    these processes; None: of this one and those below it."""
    seconds = {}
    for pid in _processes() if pids is None else pids:
        for thread in _threads(pid):
            numbers = _read(f"/proc/{pid}/task/{thread}/schedstat").split()
            if numbers:
                seconds[pid, thread] = int(numbers[1]) / 1e9
    return seconds


def waited_for_disk() -> float:
    """Seconds in which the disk has kept some process of the machine waiting."""
    total = re.search(r"^some .* total=(\d+)$", _read("/proc/pressure/io"), re.MULTILINE)
    return int(total[1]) / 1e6 if total else 0.0


def _processes() -> Iterator[int]:
    pending = [os.getpid(), *_elsewhere]
    while pending:
        pid = pending.pop()
        yield pid
        for thread in _threads(pid):
            children = _read(f"/proc/{pid}/task/{thread}/children")
            pending += map(int, children.split())


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 (paths as objects take longer than this)
    except OSError:  # the process has ended
        return []


def _read(file: str) -> str:
    try:
        with open(file, "rb", buffering=0) as content:  # noqa: PTH123
            return content.read().decode()
    except OSError:
        return ""
