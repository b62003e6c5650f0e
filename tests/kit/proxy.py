"""A proxy that does to connections what networks and poolers do: delays, silence, resets, refusals.

with proxied(postgresql_url) as (proxy, url):
    engine = open_engine(url)    # the way to the database leads through the proxy
    proxy.blackhole()            # nothing arrives any more, without an error
    proxy.mute()                 # what clients send arrives, and no answer to it
    proxy.forward()              # what was held up arrives
    proxy.forget()               # as blackhole, forever, for the connections that there are
    proxy.reset()                # RST on every connection
    proxy.instead[b"COMMIT"] = None             # RST when a client sends this; it never arrives
    proxy.instead[b"LISTEN"] = refusal("0A000") # and here the proxy answers by itself
    proxy.once_arrived.add(b"COMMIT")           # RST too, but this arrives
    proxy.latency_seconds = 0.1
"""

import asyncio
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import URL, make_url

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


class Proxy:
    """A TCP port of 127.0.0.1 in front of an address. Its methods may be called by any thread."""

    def __init__(self, upstream: Address) -> None:
        self.latency_seconds = 0.0
        self.instead: dict[bytes, bytes | None] = {}
        """Bytes in a message of the client -> the answer that it gets; None: a reset."""
        self.once_arrived: set[bytes] = set()
        """Bytes in a message of the client. Once they are sent on, the connection is reset."""
        self._upstream = upstream
        self._writers: set[StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._forgotten: list[asyncio.Event] = []
        self._heard = asyncio.Event()
        self._heard.set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serving = asyncio.start_server(self._serve, sock=self._listening)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()

    def blackhole(self) -> None:
        self._do(self._open.clear)

    def forget(self) -> None:
        def forget() -> None:
            self._open.clear()
            self._forgotten.append(self._open)
            self._open = asyncio.Event()
            self._open.set()

        self._do(forget)

    def mute(self) -> None:
        self._do(self._heard.clear)

    def forward(self) -> None:
        self._do(self._open.set)
        self._do(self._heard.set)

    def reset(self) -> None:
        self._do(self._reset)

    def close(self) -> None:
        """Resets what is left; from now on connections are refused."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for gate in (self._open, *self._forgotten):
            gate.set()
        self._heard.set()
        self._reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            # Python 3.11 prints of each connection whose task is cancelled.
            await asyncio.wait(others, timeout=1)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _do(self, action: Callable[[], object]) -> None:
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(act)
        assert done.wait(5)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            if isinstance(self._upstream, str):
                server = await asyncio.open_unix_connection(self._upstream)
            else:
                server = await asyncio.open_connection(*self._upstream)
        except OSError:
            _reset(writer)
            return
        both = {writer, server[1]}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pump(reader, server[1], writer))
                ways.create_task(self._pump(server[0], writer, None))
        except* OSError:
            pass  # one of the two ended it
        finally:
            self._writers -= both
            for side in both:
                side.transport.abort()

    async def _pump(
        self, reader: StreamReader, writer: StreamWriter, asking: StreamWriter | None
    ) -> None:
        """Carries bytes one way; `asking` is the client if the bytes come from it."""
        gate = self._open
        while data := await reader.read(65_536):
            await asyncio.sleep(self.latency_seconds)
            await gate.wait()
            if not asking:
                await self._heard.wait()
            wanted = next((text for text in list(self.instead) if asking and text in data), None)
            if wanted is None or asking is None:
                writer.write(data)
                await writer.drain()
                if asking and any(text in data for text in list(self.once_arrived)):
                    _reset(asking)
            elif (answer := self.instead[wanted]) is not None:
                asking.write(answer)
            else:
                _reset(asking)
        writer.write_eof()

    def _reset(self) -> None:
        for writer in self._writers:
            _reset(writer)


def _reset(writer: StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection.family != socket.AF_UNIX and not writer.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def proxied(url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy in front of a PostgreSQL server, and the URL that leads through it."""
    parsed = make_url(url)
    proxy = Proxy(_address(parsed))
    through = parsed.set(host="127.0.0.1", port=proxy.port).difference_update_query(["host"])
    try:
        yield proxy, through.render_as_string(hide_password=False)
    finally:
        proxy.close()


def refusal(sqlstate: str) -> bytes:
    """PostgreSQL's answer to a statement that it refuses: ErrorResponse, ReadyForQuery."""
    text = f"SERROR\0VERROR\0C{sqlstate}\0Mrefused by a pooler\0\0".encode()
    return b"E" + struct.pack("!i", len(text) + 4) + text + b"Z" + struct.pack("!i", 5) + b"I"


def _address(url: URL) -> Address:
    host = url.query.get("host", url.host)
    assert isinstance(host, str)
    port = url.port or 5432
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
