"""What Envoy carries: one serving process, within the lifespan of an ASGI application.

The process that started Envoy (`envoy.py`) holds the other end of a socket. It is told there that
we serve, or why not; and when that end closes, by a signal or because its holder died, we finish
what is in flight and end Envoy with us.
"""

import asyncio
import os
import signal
import socket
import threading
from typing import Any

from pdp.envoy import LINK_VARIABLE, ORIGIN_VARIABLE, SERVING
from pdp.errors import PdpError
from pdp.logs import configure_logs
from pdp.settings import Settings
from pdp.supervisor import METRICS_VARIABLE
from pdp.wire import Receive, Scope, Send


class Application:
    """An ASGI application: it lives by `lifespan`, and answers by the service's door."""

    def __init__(self) -> None:
        self._service: Any = None
        self._stopping = threading.Lock()
        self._stopped = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._service.application(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        link = socket.socket(fileno=int(os.environ[LINK_VARIABLE]))  # noqa: TID251
        try:
            await asyncio.to_thread(self._start)
        except (PdpError, OSError, RuntimeError, ValueError) as error:
            link.sendall((error.message if isinstance(error, PdpError) else str(error)).encode())
            await asyncio.to_thread(self._stop)
            await send({"type": "lifespan.startup.failed", "message": "pdp did not start"})
            return
        link.sendall(SERVING)
        threading.Thread(target=self._end_with, args=(link,), name="link", daemon=True).start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(self._stop)
        await send({"type": "lifespan.shutdown.complete"})

    def _start(self) -> None:
        settings = Settings.load()
        configure_logs(settings.log_level, settings.log_format)
        # prometheus_client decides at import whether processes share their metrics.
        from pdp.app import Service  # noqa: PLC0415

        self._service = Service(
            settings,
            origin=os.environ[ORIGIN_VARIABLE],  # noqa: TID251
            metrics_directory=os.environ.get(METRICS_VARIABLE),  # noqa: TID251
        )
        self._service.start()

    def _stop(self) -> None:
        """Stops once: whoever comes second waits for the first."""
        with self._stopping:
            if self._service is not None and not self._stopped:
                self._service.stop()
            self._stopped = True

    def _end_with(self, link: socket.socket) -> None:
        link.recv(1)
        self._stop()
        os.kill(os.getpid(), signal.SIGTERM)


application = Application()
