"""The ASGI application of the HTTP port: /healthz, /readyz, /metrics and Clerk's webhooks."""

from collections.abc import Callable
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pdp.http.bounded_post import BoundedPost, PostHandler

WEBHOOK_PATH = "/webhooks/clerk"


class Metrics(Protocol):
    """The metrics to expose, and a counter of webhook requests."""

    def text(self) -> bytes:
        """All metrics in Prometheus' exposition format."""

    def count_webhook(self, type_: str, outcome: str) -> None:
        """Counts one webhook request."""


def http_application(
    metrics: Metrics, why_not_ready: Callable[[], list[str]], webhook: PostHandler | None = None
) -> Starlette:
    """Creates the application.

    Args:
        metrics: For /metrics.
        why_not_ready: Returns the obstacles as sentences; empty means ready.
        webhook: Handles `WEBHOOK_PATH`; None: the path does not exist.
    """

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        reasons = why_not_ready()
        if reasons:
            return PlainTextResponse("".join(f"{r}\n" for r in reasons), status_code=503)
        return PlainTextResponse("ready\n")

    def scrape(_: Request) -> Response:  # in a thread: with many series it takes a while
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    routes = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", scrape),
    ]
    if webhook is not None:
        post = BoundedPost(webhook, lambda why: metrics.count_webhook("unknown", why))
        routes.append(Route(WEBHOOK_PATH, post.answer, methods=["POST"]))
    return Starlette(routes=routes)
