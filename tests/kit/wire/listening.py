"""An ASGI application on a port, in this process, carried as `pdp serve` carries it."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pdp.process.listener import EventLoop, HttpListener


@contextmanager
def listening(
    application: Callable[..., Awaitable[None]], listen: str = "127.0.0.1:0", **options: Any
) -> Iterator[int]:
    """The port, while it is open."""
    loop = EventLoop()
    loop.start()
    listener = HttpListener(application, listen=listen, drain_seconds=1, **options)
    try:
        loop.run(listener.open())
        yield listener.port
    finally:
        loop.run(listener.close())
        loop.stop()
