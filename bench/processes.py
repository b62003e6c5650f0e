"""Server processes: pinned to a core, waited for, looked at, and ended."""

import os
import re
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import plan

_TICKS = os.sysconf("SC_CLK_TCK")
_POLL_SECONDS = 0.02
_SETTLE_POLL_SECONDS = 0.5
_RESTING_SHARE = 0.1
"""Of a core: servers poll, and ticks are coarse."""


class BenchError(Exception):
    """The measurement cannot be made; the text says why."""


_PACKAGES = {"h2load": "nghttp2-client", "taskset": "util-linux", "npm": "npm", "go": "golang"}
"""The Debian package of each program."""


def require(*programs: str) -> None:
    """Raises BenchError if a program is missing."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        named = ", ".join(f"{program} (Debian: {_PACKAGES[program]})" for program in missing)
        raise BenchError(f"not installed: {named}")


def run(
    command: Sequence[str],
    *,
    directory: Path = plan.ROOT,
    environment: Mapping[str, str] | None = None,
    seconds_max: float = plan.INSTALL_SECONDS_MAX,
) -> str:
    """What a command prints. Raises BenchError if it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=seconds_max,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(command)}: takes more than {seconds_max:.0f} s") from None
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {(done.stderr or done.stdout)[-2000:].strip()}")
    return done.stdout


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def pinned(
    command: Sequence[str],
    core: int,
    log: Path,
    environment: Mapping[str, str],
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core with its output in `log`; ended with the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            env={**os.environ, **environment},
            cwd=cwd,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str, log: Path
) -> float:
    """Seconds until `ready()`. Raises BenchError where the process ends or takes too long."""
    started = time.monotonic()
    while not ready():
        if process.poll() is not None:
            raise BenchError(f"{what} ended: {log.read_text()[-2000:]}")
        if time.monotonic() - started > plan.START_SECONDS_MAX:
            raise BenchError(f"{what} is not ready after {plan.START_SECONDS_MAX:.0f} s")
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - started


def settle(pids: Collection[int]) -> None:
    """Waits until these processes rest, at most plan.SETTLE_SECONDS_MAX."""
    end = time.monotonic() + plan.SETTLE_SECONDS_MAX
    resting = False
    while not resting and time.monotonic() < end:
        before = sum(map(cpu_seconds, pids))
        time.sleep(_SETTLE_POLL_SECONDS)
        resting = sum(map(cpu_seconds, pids)) - before <= _RESTING_SHARE * _SETTLE_POLL_SECONDS


def resident_mib(pid: int) -> float:
    """Resident memory of a process and of all that it started, in MiB."""
    return sum(_resident_kib(member) for member in _family(pid)) / 1024


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and all that it started have used."""
    ticks = 0
    for member in _family(pid):
        fields = _stat(member)
        ticks += int(fields[11]) + int(fields[12]) if fields else 0
    return ticks / _TICKS


@dataclass(frozen=True, slots=True)
class Noise:
    """What the machine does beside the measurement."""

    busy_ticks: int
    own_seconds: float

    @classmethod
    def listen(cls) -> "Noise":
        """From now on."""
        # /proc/stat: user nice system idle iowait irq softirq steal, of all cores
        ticks = [
            int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        ]
        own = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(
            busy_ticks=ticks[0] + ticks[1] + ticks[2] + ticks[7],
            own_seconds=sum(usage.ru_utime + usage.ru_stime for usage in own),
        )

    def others_seconds(self, subject_seconds: float) -> float:
        """Processor time since then of all but this process, its ended children (the load
        generator) and the subject."""
        now = Noise.listen()
        busy = (now.busy_ticks - self.busy_ticks) / _TICKS
        return max(0.0, busy - (now.own_seconds - self.own_seconds) - subject_seconds)


def _resident_kib(pid: int) -> int:
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def _family(pid: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family
