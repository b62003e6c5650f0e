"""The parts of every serving process: its ports, readiness, and an order of start and stop.

A process starts even if nothing is reachable: it is alive and not ready, and becomes ready by
itself.
"""

import contextlib
import faulthandler
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from pdp.concurrency.background import BackgroundTask
from pdp.process.gc import freeze_gc
from pdp.process.listener import EventLoop, HttpListener
from pdp.process.metrics import Metrics
from pdp.process.signals import stop_signals
from pdp.wire import Application, Health

STOP_SECONDS_MAX = 2.0
PARTS_SECONDS_MAX = 15.0
"""Time to stop all parts after the ports are closed. More than this is a defect."""
_SIGNAL_SECONDS = 0.2

Check = tuple[Callable[[], bool], str]
"""Whether a part is ready, and the sentence to show if it is not."""


class Part(NamedTuple):
    """A part of a process that starts and stops with it."""

    start: Callable[[], object]
    stop: Callable[[], object]


class Lifecycle:
    """Starts and stops the parts and ports of a process, and reports its readiness."""

    def __init__(
        self,
        application: Application,
        health: Health,
        metrics: Metrics,
        *,
        grpc: HttpListener | None,
        http: HttpListener,
        console: HttpListener | None = None,
        checks: Callable[[], Sequence[Check]],
        drain_seconds: float,
        readiness_seconds: float,
        log: Any,
    ) -> None:
        """Creates the lifecycle; `start` starts it.

        Args:
            application: Serves the gRPC port.
            health: The health service, set when readiness changes.
            metrics: Refreshed whenever readiness is checked.
            grpc: The gRPC port; None: another server owns it.
            http: The port of probes, metrics and webhooks.
            console: The port of the console; None: there is none.
            checks: The conditions of readiness, in the order in which obstacles are shown.
            drain_seconds: How long requests in flight may take when the process stops.
            readiness_seconds: Time between two checks of readiness.
            log: The logger of the process.
        """
        self._application = application
        self._health = health
        self._metrics = metrics
        self._grpc = grpc
        self._http = http
        self._console = console
        self._checks = checks
        self._drain_seconds = drain_seconds
        self._readiness_seconds = readiness_seconds
        self._log = log
        self._loop = EventLoop()
        self._serving = False
        self._stopping = False
        self._started = contextlib.ExitStack()
        """What `stop` must stop, last started first."""
        self._readiness = BackgroundTask(
            "readiness",
            self._check_readiness,
            retry_seconds=(readiness_seconds, readiness_seconds),
            log=log,
            failed="readiness_unknown",
        )

    def obstacles(self) -> list[str]:
        """Why the process is not ready; empty: it is."""
        found = ["shutting down"] if self._stopping else []
        found += [sentence for holds, sentence in self._checks() if not holds()]
        if self._grpc is not None and not self._grpc.is_open():
            found.append("the port is not open")
        return found

    def start(self, *parts: Part) -> None:
        """Starts the HTTP port, the parts in this order, the console, and the gRPC port.

        Raises OSError, RuntimeError or AuditUnavailable if a part cannot start; `stop` then stops
        the parts that have started.
        """
        started = self._started
        self._loop.start()
        started.callback(self._loop.stop)
        self._loop.run(self._http.open())
        started.callback(lambda: self._loop.run(self._http.close()))
        for part in parts:
            part.start()
            started.callback(part.stop)
        console = self._console
        if console is not None:
            self._loop.run(console.open())
            started.callback(lambda: self._loop.run(console.close()))
        if self._grpc is not None:
            self._loop.run(self._grpc.open())
            started.callback(lambda: self._loop.run(self._close_grpc()))
        self._readiness.start()

    def listens(self) -> bool:
        """Whether all ports are open. A listener that ended does not restart by itself."""
        listeners = (self._grpc, self._http, self._console)
        return all(listener is None or listener.is_open() for listener in listeners)

    def stop(self) -> None:
        """Stops accepting requests, finishes those in flight, and stops the parts, last first."""
        self._log.info("stopping")
        self._stopping = True
        self._readiness.stop(STOP_SECONDS_MAX)
        self._started.close()
        self._log.info("stopped")

    async def _close_grpc(self) -> None:
        """Finishes accepted requests, then sends GOAWAY to clients."""
        self._health.set_serving(serving=False)
        await self._application.drain(self._drain_seconds)
        if self._grpc is not None:
            await self._grpc.close()

    def _check_readiness(self) -> float:
        obstacles = self.obstacles()
        if not self._stopping and self._serving == bool(obstacles):
            self._serving = not obstacles
            self._health.set_serving(serving=self._serving)
            self._log.info("readiness", ready=self._serving, obstacles=obstacles)
            if self._serving:
                freeze_gc()
        self._metrics.refresh()
        return self._readiness_seconds


class Process(Protocol):
    """A server or a sidecar."""

    def start(self) -> object:
        """Starts all parts."""

    def listens(self) -> bool:
        """Whether all ports are open."""

    def stop(self) -> None:
        """Stops all parts."""


def run_until_stopped(process: Process, *, drain_seconds: float) -> bool:
    """Runs a process until SIGTERM or SIGINT.

    A process that does not stop prints the stacks of its threads, and exits with 1.

    Args:
        process: The process.
        drain_seconds: How long requests in flight may take when it stops.

    Returns:
        False if a port closed by itself: the supervisor of the process should restart it.
    """
    stop_requested = stop_signals()
    try:
        process.start()
        # In short waits: a signal that another thread receives does not end a wait.
        while not stop_requested(_SIGNAL_SECONDS):
            if not process.listens():
                return False
    finally:
        # Requests are drained, then connections, then the parts stop.
        faulthandler.dump_traceback_later(2 * drain_seconds + PARTS_SECONDS_MAX, exit=True)
        process.stop()
        faulthandler.cancel_dump_traceback_later()
    return True
