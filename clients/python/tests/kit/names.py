"""A name server of one name, for tests of what changes behind it."""

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_TYPE_A = 1


class Names:
    """Answers every question for an IPv4 address with `addresses`. RFC 1035, section 4."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.addresses: Sequence[str] = ()

    def target(self, port: int) -> str:
        """A gRPC target that is looked up here."""
        return f"dns://127.0.0.1:{self._socket.getsockname()[1]}/pdp.test:{port}"

    def answer(self) -> None:
        """Until an empty message comes."""
        while True:
            asked, peer = self._socket.recvfrom(512)
            if not asked:
                return
            end = asked.index(b"\0", 12) + 5
            kind = int.from_bytes(asked[end - 4 : end - 2], "big")
            found = self.addresses if kind == _TYPE_A else ()
            said = asked[:2] + struct.pack(">HHHHH", 0x8580, 1, len(found), 0, 0) + asked[12:end]
            for address in found:
                said += struct.pack(">HHHIH", 0xC00C, _TYPE_A, 1, 0, 4) + socket.inet_aton(address)
            self._socket.sendto(said, peer)


@contextmanager
def name_server() -> Iterator[Names]:
    """On a free port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        names = Names(sock)
        thread = threading.Thread(target=names.answer)
        thread.start()
        try:
            yield names
        finally:
            sock.sendto(b"", sock.getsockname())
            thread.join()
