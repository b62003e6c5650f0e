"""A real HTTP server on loopback that publishes a key set, counts the fetches, and misbehaves.

with KeyServer([signing_key().jwk()]) as server:
    IssuerSettings(issuer=server.issuer)          # its key set is where Clerk's would be
    server.mode = Mode.ERROR
    assert server.fetches == 1
"""

import enum
import gzip
import json
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

PATH = "/.well-known/jwks.json"
REDIRECTED_PATH = "/redirected.json"


class Mode(enum.Enum):
    KEYS = "the key set"
    SLOW = "the key set, once `release()` is called (or after 30 s)"
    TRICKLE = "one byte every 0.2 s, forever"
    TRICKLE_HEADERS = "one header line every 0.2 s, forever"
    ERROR = "500"
    HTML = "200 with an HTML page"
    HUGE = "200 with 50 MB of valid JSON"
    GZIP = "the key set, compressed whatever the client accepts"
    GZIP_BOMB = "50 MB of zeros, compressed"
    REDIRECT = "302 to a path that serves the key set"
    BODY = "200 with `server.body`"


class KeyServer:
    """Serves `keys` at `<issuer>/.well-known/jwks.json`. Attributes may be set while it runs."""

    def __init__(self, keys: Iterable[dict[str, Any]] = ()) -> None:
        self.keys = list(keys)
        self.mode = Mode.KEYS
        self.body = b""
        self.fetches = 0
        """Requests of the key set's own path."""
        self.redirects_followed = 0
        self.request_headers: dict[str, str] = {}
        """The headers of the last fetch, names in lower case."""
        self._released = threading.Event()
        self._stopping = threading.Event()
        self._count_lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def jwks_url(self) -> str:
        return self.issuer + PATH

    def release(self) -> None:
        """Lets the requests that wait in SLOW go on, and those to come."""
        self._released.set()

    def hold(self) -> None:
        """Makes requests wait in SLOW again."""
        self._released.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one GET, as the mode says."""
        if request.path == REDIRECTED_PATH:
            self.redirects_followed += 1
            _send(request, 200, self._key_set())
            return
        if request.path != PATH:
            _send(request, 404, b"{}")
            return
        mode = self.mode  # as it is when the fetch begins
        with self._count_lock:
            self.fetches += 1
            self.request_headers = {k.lower(): v for k, v in request.headers.items()}
        match mode:
            case Mode.KEYS:
                _send(request, 200, self._key_set())
            case Mode.SLOW:
                self._released.wait(30)
                _send(request, 200, self._key_set())
            case Mode.TRICKLE | Mode.TRICKLE_HEADERS:
                self._trickle(request, mode)
            case Mode.ERROR:
                _send(request, 500, b'{"errors":[]}')
            case Mode.HTML:
                _send(request, 200, b"<!doctype html><h1>Hello</h1>", kind="text/html")
            case Mode.HUGE:
                body = b'{"padding":"' + b"x" * 50_000_000 + b'",' + self._key_set()[1:]
                _send(request, 200, body)
            case Mode.GZIP:
                _send(request, 200, gzip.compress(self._key_set()), encoding="gzip")
            case Mode.GZIP_BOMB:
                _send(request, 200, gzip.compress(bytes(50_000_000)), encoding="gzip")
            case Mode.REDIRECT:
                request.send_response(302)
                request.send_header("Location", self.issuer + REDIRECTED_PATH)
                request.send_header("Content-Length", "0")
                request.end_headers()
            case Mode.BODY:
                _send(request, 200, self.body)

    def _key_set(self) -> bytes:
        return json.dumps({"keys": self.keys}).encode()

    def _trickle(self, request: BaseHTTPRequestHandler, mode: Mode) -> None:
        request.send_response(200)
        piece = b"X-Padding: 1\r\n"
        if mode is Mode.TRICKLE:
            piece = b"\r\n"  # the first one ends the headers
        request.flush_headers()
        while not self._stopping.wait(0.2):
            request.wfile.write(piece)
            request.wfile.flush()


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    *,
    kind: str = "application/json",
    encoding: str | None = None,
) -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    if encoding:
        request.send_header("Content-Encoding", encoding)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def _handler_of(server: KeyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                server.answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client had enough, as it should

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler
