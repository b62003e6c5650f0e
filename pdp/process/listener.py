"""Serves an ASGI application on a port: h2corn's HTTP server on an event loop in a thread.

h2corn reads and writes HTTP/1.1, HTTP/2 and TLS in Rust; only requests reach the event loop.
"""

import asyncio
import contextlib
import contextvars
import os
import resource
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final

import h2corn
import structlog

from pdp import limits
from pdp.settings import TlsSettings

log = structlog.get_logger("pdp.process.listener")

SOCKET_UMASK: Final = 0o117
"""Only processes of the same user or group may use a unix socket."""
START_SECONDS_MAX: Final = 10.0
BODY_IDLE_SECONDS_MAX: Final = 5.0
STALL_SECONDS_MAX: Final = 10.0
IDLE_SECONDS_MAX: Final = 600.0
BODY_SLACK_BYTES: Final = limits.MESSAGE_BYTES_MAX
"""Above the limit of a path, which the application enforces first with a clear status."""
FILES_RESERVED: Final = 256
"""Open files reserved for the database, the decision log and key fetches."""
LISTENERS: Final = 2
"""Listeners of a process that share the remaining files. The console takes reserved ones."""
CONNECTIONS_MIN: Final = 16
FRAME_BYTES_MAX: Final = 16 * 1024
"""The minimum of HTTP/2, and the default of clients (RFC 9113, 6.5.2)."""
HEADER_BYTES_MAX: Final = 8 * limits.METADATA_BYTES_MAX
"""A larger header closes its connection."""


class EventLoop:
    """An event loop in its own thread, for the listeners of a process."""

    def __init__(self) -> None:
        self._loop: Final = asyncio.new_event_loop()
        if sys.version_info < (3, 12):  # from 3.12 on h2corn does this itself
            self._loop.set_task_factory(_start_at_once)
        self._thread = threading.Thread(target=self._run, name="event-loop", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine on the loop and returns its result. Must not be called on the loop."""
        return self.submit(work).result()

    def submit(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Starts a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        """Stops the loop, and cancels its running tasks."""
        if self._thread.is_alive():
            self.run(_cancel_others())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()


class HttpListener:
    """A TCP port or unix socket of a process."""

    def __init__(
        self,
        application: Callable[..., Awaitable[None]],
        *,
        listen: str,
        shared: bool = False,
        tls: TlsSettings | None = None,
        policies: Sequence[tuple[str, int]] = (),
        connections_max: int = limits.CONNECTIONS_MAX,
        drain_seconds: float = 10,
    ) -> None:
        """Creates the listener; `open` binds it.

        Args:
            application: The ASGI application.
            listen: `host:port` or `unix:PATH`.
            shared: Whether other processes may bind the same port.
            tls: None: clear text.
            policies: Paths, and for each the greatest body in bytes.
            connections_max: Open connections.
            drain_seconds: How long `close` waits for open requests.

        Raises:
            ValueError: The address cannot be used.
        """
        unix = listen.startswith("unix:")
        self._listen = f"unix:{listen.removeprefix('unix:').removeprefix('//')}" if unix else listen
        self._umask = SOCKET_UMASK if unix else None
        mtls = tls is not None and tls.client_ca_file is not None
        self._server = h2corn.Server(
            application,
            h2corn.Config(
                bind=(self._listen,),
                reuse_port=shared and not unix,
                certfile=tls.certificate_file if tls else None,
                keyfile=tls.private_key_file if tls else None,
                ca_certs=tls.client_ca_file if tls else None,
                cert_reqs="required" if mtls else "none",
                lifespan="off",
                loop="asyncio",
                runtime_threads=1,
                grpc=True,
                http1=True,
                access_log=False,
                log_format="json",
                server_header="off",
                date_header=False,
                max_concurrent_streams=limits.STREAMS_MAX,
                limit_connections=_affordable(connections_max),
                limit_request_head_size=HEADER_BYTES_MAX,
                limit_request_field_size=HEADER_BYTES_MAX,
                h2_max_header_list_size=HEADER_BYTES_MAX,
                h2_max_header_block_size=HEADER_BYTES_MAX,
                h2_max_inbound_frame_size=FRAME_BYTES_MAX,
                h2_initial_stream_window_size=limits.WINDOW_BYTES,
                h2_initial_connection_window_size=4 * limits.WINDOW_BYTES,
                max_request_body_size=BODY_SLACK_BYTES,
                request_policies=tuple(
                    h2corn.RequestPolicy(
                        path=path,
                        max_request_body_size=bytes_max + BODY_SLACK_BYTES,
                        timeout_request_body_idle=BODY_IDLE_SECONDS_MAX,
                        h2_timeout_response_stall=STALL_SECONDS_MAX,
                    )
                    for path, bytes_max in (*policies, ("/*", 0))
                ),
                timeout_graceful_shutdown=drain_seconds,
                timeout_keep_alive=IDLE_SECONDS_MAX,
                h2_timeout_response_stall=STALL_SECONDS_MAX,
                websocket_per_message_deflate=False,
            ),
        )
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The TCP port; 0 for a unix socket."""
        if self._umask is not None or not self._server.addresses:
            return 0
        return int(self._server.addresses[0].rpartition(":")[2])

    def is_open(self) -> bool:
        """Whether the port is served."""
        return self._serving is not None and not self._serving.done()

    async def open(self) -> None:
        """Binds the port and serves. Raises OSError or ValueError if that is not possible."""
        with _umask(self._umask):
            self._serving = asyncio.ensure_future(self._server.serve())
            self._serving.add_done_callback(self._log_end)
            try:
                async with asyncio.timeout(START_SECONDS_MAX):
                    await self._server.wait_started()
            except OSError as error:
                cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
                raise OSError(f"{self._listen}: {cause.strerror or error}") from error

    def _log_end(self, serving: "asyncio.Task[None]") -> None:
        error = None if serving.cancelled() else serving.exception()
        if error is not None:
            log.error("listener_ended", listen=self._listen, error=str(error))

    async def close(self) -> None:
        """Accepts no new connections, sends GOAWAY to clients, and waits for open requests."""
        if self._serving is None:
            return
        self._server.shutdown()
        try:
            await self._serving
        except (RuntimeError, OSError) as error:
            log.warning("listener_not_drained", listen=self._listen, error=str(error))


def _start_at_once(loop: asyncio.AbstractEventLoop, coroutine: Any) -> "asyncio.Task[Any]":
    """A task that has run until its first wait, as with asyncio.eager_task_factory (Python 3.12).

    Most requests never wait: their tasks complete here, without another iteration of the loop.
    """
    if not loop.is_running() or asyncio.current_task(loop) is not None:
        return asyncio.Task(coroutine, loop=loop)
    held: list[tuple[Callable[[], None], contextvars.Context]] = []
    # A new task schedules its first step with call_soon.
    loop.call_soon = lambda step, *, context: held.append((step, context))  # type: ignore
    try:
        task = asyncio.Task(coroutine, loop=loop)
    finally:
        del loop.call_soon
    step, context = held.pop()
    context.run(step)
    return task


def _affordable(connections: int) -> int:
    """The number of connections, reduced if the process may not open that many files.

    One connection too many ends the listener: h2corn treats a failed accept as fatal.
    """
    needed = LISTENERS * connections + FILES_RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < needed:  # -1: without a limit
        soft = needed if hard < 0 else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if not 0 <= soft < needed:
        return connections
    affordable = max((soft - FILES_RESERVED) // LISTENERS, CONNECTIONS_MIN)
    log.warning("connections_limited", maximum=affordable, open_files_max=soft, wanted=connections)
    return affordable


@contextlib.contextmanager
def _umask(mask: int | None) -> Iterator[None]:
    if mask is None:
        yield
        return
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=1)
