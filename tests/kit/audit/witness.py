"""A witness (https://c2sp.org/tlog-witness) on loopback, which checks what it cosigns.

Its checks are those of the auditors' file, which shares no code with the package.
"""

import base64
import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pdp.audit.transparency.notes import WITNESS_KEY, VerifierKey
from pdp.settings.audit_tree import WitnessSettings
from tests.kit.audit.trees import load_tool

Answer = tuple[int, str, bytes]
"""Status, content type and body."""


@dataclass
class Witness:
    """What a witness knows, and what it was asked."""

    log_key: VerifierKey
    origin_prefix: str = ""
    name: str = "witness.example/w1"
    url: str = ""
    seen: dict[str, Any] = field(default_factory=dict)
    """By origin line: the newest checkpoint that it cosigned."""
    asked: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    attack: Callable[[str], Answer] | None = None
    """Answers instead."""
    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def key(self) -> VerifierKey:
        public = self.private.public_key().public_bytes_raw()
        return VerifierKey(self.name, public, WITNESS_KEY)

    @property
    def settings(self) -> WitnessSettings:
        return WitnessSettings(url=self.url, key=str(self.key))

    def cosign(self, text: str, at: int | None = None) -> bytes:
        """A signature line."""
        when = int(time.time()) if at is None else at
        signature = self.private.sign(f"cosignature/v1\ntime {when}\n{text}".encode())
        content = base64.b64encode(self.key.id + when.to_bytes(8, "big") + signature).decode()
        return f"\u2014 {self.name} {content}\n".encode()

    def answer(self, body: str) -> Answer:  # noqa: PLR0911  # one for each demand
        """The answer to `add-checkpoint`, as the specification demands it."""
        tool = load_tool()
        head, _, note = body.partition("\n\n")
        first, *lines = head.split("\n")
        if not re.fullmatch(r"old (0|[1-9][0-9]*)", first, re.ASCII) or len(lines) > 63:
            return 400, "text/plain", b""
        old = int(first[4:])
        if not note.startswith(self.origin_prefix):
            return 404, "text/plain", b""
        try:
            new = tool.open_checkpoint(note, [tool.Key.parse(str(self.log_key), b"\x01")])
        except tool.Refused:
            return 403, "text/plain", b""
        if old > new.size:
            return 400, "text/plain", b""
        with self._lock:
            seen = self.seen.get(new.origin)
            if old != (seen.size if seen else 0):
                return 409, "text/x.tlog.size", f"{seen.size if seen else 0}\n".encode()
            if seen and seen.size == new.size and seen.root != new.root:
                return 409, "text/plain", b""
            try:
                if seen:
                    path = [tool.decode64(line) for line in lines]
                    tool.check_consistency(seen, new, path)
                elif lines:
                    return 422, "text/plain", b""
            except tool.Refused:
                return 422, "text/plain", b""
            self.seen[new.origin] = new
        return 200, "text/plain", self.cosign(note.rpartition("\n\n")[0] + "\n")

    def knows(self, tree: Path) -> int:
        """The size that it has cosigned of a tree."""
        sizes = [seen.size for origin, seen in self.seen.items() if origin.endswith(tree.name)]
        return sizes[0] if sizes else 0


@contextmanager
def serving(witness: Witness) -> Iterator[Witness]:
    """Serves a witness; sets its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            witness.asked.append(body)
            known = self.path == "/prefix/add-checkpoint"
            answer = witness.attack or witness.answer
            status, kind, content = answer(body) if known else (404, "text/plain", b"")
            witness.statuses.append(status)
            try:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                self.close_connection = True  # the client has had enough

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    witness.url = f"http://127.0.0.1:{server.server_port}/prefix/"
    try:
        yield witness
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
