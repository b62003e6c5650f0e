"""Runs several processes on one port: each is a complete `pdp serve`, with SO_REUSEPORT.

A process that dies is restarted; a signal to stop is sent to all of them.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence

import structlog

from pdp.process.signals import stop_signals
from pdp.settings import Settings

log = structlog.get_logger("pdp.process.supervisor")

RESTART_SECONDS = 1.0
START_SECONDS_MAX = 60.0
STATUS_FAILED = 2
"""Exit status of a command that wrote its error to standard error."""
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def supervise(settings: Settings, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs `command --worker N` for each of `settings.processes` until SIGTERM or SIGINT.

    Raises:
        RuntimeError: A first process cannot start, so its successor could not either.
    """
    stop_requested = stop_signals()
    metrics = tempfile.mkdtemp(prefix="pdp-metrics-")
    shared = {**environment, METRICS_VARIABLE: metrics}

    def start(worker: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, "--worker", str(worker)], env=shared)  # noqa: S603

    workers = {number: start(number) for number in range(settings.processes)}
    started_at = time.monotonic()
    first = dict(workers)
    try:
        while not stop_requested(0.2):
            for number, process in workers.items():
                status = process.poll()
                if status is not None:
                    log.error("worker_ended", worker=number, status=status)
                    early = time.monotonic() < started_at + START_SECONDS_MAX
                    if early and status == STATUS_FAILED and process is first[number]:
                        raise RuntimeError(f"process {number} did not start: see its error above")
                    if stop_requested(RESTART_SECONDS):
                        break
                    workers[number] = start(number)
    finally:
        for process in workers.values():
            process.terminate()
        deadline = time.monotonic() + settings.shutdown_seconds + 10
        for process in workers.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(metrics, ignore_errors=True)
