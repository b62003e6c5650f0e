"""uvicorn in a thread of its own, so that probes are answered while all RPC threads are busy."""

import asyncio
import socket
import threading
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from pdp.http.bounded_post import BoundedPost, PostHandler
from pdp.http.metrics import Metrics

WEBHOOK_PATH = "/webhooks/clerk"
HEAD_SECONDS_MAX = 10.0
"""For the head of a request, from the connection on, or from the request before."""


class HttpServer:
    """Serves /healthz, /readyz and /metrics, and `WEBHOOK_PATH` where `webhook` answers it.

    `why_not_ready` returns sentences; none means ready. `shared`: by the processes of one
    `pdp serve`. Raises OSError where the address cannot be bound.
    """

    def __init__(
        self,
        address: str,
        metrics: Metrics,
        why_not_ready: Callable[[], list[str]],
        webhook: PostHandler | None = None,
        *,
        shared: bool = False,
    ) -> None:
        def healthz(_: Request) -> Response:
            return PlainTextResponse("alive\n")

        def readyz(_: Request) -> Response:
            reasons = why_not_ready()
            if reasons:
                return PlainTextResponse("".join(f"{r}\n" for r in reasons), status_code=503)
            return PlainTextResponse("ready\n")

        def scrape(_: Request) -> Response:
            return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

        routes = [
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", scrape),
        ]
        if webhook is not None:
            post = BoundedPost(webhook, lambda why: metrics.count_webhook("unknown", why))
            routes.append(Route(WEBHOOK_PATH, post.answer, methods=["POST"]))
        self._socket = _bind(address, shared=shared)
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                Starlette(routes=routes),
                log_config=None,
                access_log=False,
                lifespan="off",
                http=_Impatient,
                timeout_keep_alive=5,
                limit_concurrency=64,
                h11_max_incomplete_event_size=16 * 1024,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="http", daemon=True
        )

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stops within a few seconds."""
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()


class _Impatient(H11Protocol):
    """Gives connections back that say nothing, or not all: probes stand in the same line. uvicorn
    itself would wait for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_later()

    def _look_later(self) -> None:
        self.loop.call_later(HEAD_SECONDS_MAX, self._look, self.cycle)

    def _look(self, before: RequestResponseCycle | None) -> None:
        if self.transport.is_closing():
            return
        answered = self.cycle is None or self.cycle.response_complete
        if answered and self.cycle is before:
            self.transport.close()
        else:
            self._look_later()


def _bind(address: str, *, shared: bool) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Otherwise somebody else's readiness would be told for one's own, now and then.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        listener.bind((host, int(port)))
        listener.listen()  # where another has just bound it too, only this tells
    except OSError as error:
        listener.close()
        raise OSError(f"http_listen: {address}: {error.strerror}") from error
    return listener
