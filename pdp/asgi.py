"""The service for another ASGI server: `pdp.asgi:application`.

It reads the settings and starts with the server's `lifespan`, and answers what `pdp serve` answers
on its gRPC port. The server must speak HTTP/2 and support `http.response.trailers`; port, TLS and
its limits are the server's own. The HTTP port (health, metrics, webhooks) is opened as usual.
"""

import asyncio

import structlog

from pdp.errors import PdpError
from pdp.process.app import Service
from pdp.process.logs import configure_logs
from pdp.settings import Settings
from pdp.wire import Receive, Scope, Send

log = structlog.get_logger("pdp.asgi")


class Carried:
    """An ASGI application that lives by `lifespan`."""

    def __init__(self) -> None:
        self._service: Service | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or lives until the server's shutdown."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._service is None:
            raise RuntimeError("the server must support lifespan")
        else:
            await self._service.application(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            settings = Settings.load()
            configure_logs(settings.log_level, settings.log_format)
            service = Service(settings, carried=True)
            await asyncio.to_thread(service.start)
        except (PdpError, OSError, RuntimeError, ValueError) as error:
            log.exception("not_started")
            await send({"type": "lifespan.startup.failed", "message": type(error).__name__})
            return
        self._service = service
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await service.application.drain(settings.shutdown_seconds)
        await asyncio.to_thread(service.stop)
        await send({"type": "lifespan.shutdown.complete"})


application = Carried()
