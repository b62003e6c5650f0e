"""Requests to an application of ASGI or WSGI, without a network."""

import asyncio
from collections.abc import Callable
from typing import Any
from wsgiref.util import setup_testing_defaults

App = Callable[[str, str, dict[str, str]], tuple[int, dict[str, str]]]
"""Takes a method, a path and headers; gives the status and the headers of the response."""


def on_asgi(app: Any) -> App:
    def ask(method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
        sent: list[dict[str, Any]] = []
        messages = [{"type": "http.request"}]
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": pairs}

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else await asyncio.Future()

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(app({"query_string": b"", **scope}, receive, send))
        found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], found

    return ask


def on_wsgi(app: Any) -> App:
    def ask(method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
        environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path}
        for name, value in headers.items():
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        setup_testing_defaults(environ)
        said: list[Any] = []
        b"".join(app(environ, lambda status, headers, _=None: said.extend((status, headers))))
        return int(said[0].partition(" ")[0]), {name.lower(): value for name, value in said[1]}

    return ask
