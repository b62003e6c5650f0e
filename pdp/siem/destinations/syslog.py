"""Syslog over TLS: messages of RFC 5424, framed by RFC 5425.

Syslog has no acknowledgement: if a connection breaks, messages that were written to it may be lost.
So each batch has a connection of its own, which ends as RFC 5425, 4.4 says: the sender sends
close_notify, and the receiver, which reads it after all messages, closes the connection. Only that
confirms the batch (`_await_end`).
"""

import contextlib
import fcntl
import socket
import ssl
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pdpapi.v1.audit_service_pb2 import AdministrationRecord
from pdpapi.v1.core_pb2 import DECISION_ALLOW

from pdp.errors import DeliveryFailed
from pdp.siem.events import TEXT_CHARACTERS_MAX, Record, record_nanoseconds, rfc3339
from pdp.siem.formats import Line

MESSAGE_BYTES_MAX: Final = 8_192
"""Receivers should accept messages of this size (RFC 5425, 4.3.1), and may truncate longer ones."""
_SHORTER: Final = (TEXT_CHARACTERS_MAX, 256, 64, 16)
_FACILITY: Final = 13
"""Log audit."""
_WARNING, _NOTICE, _INFORMATIONAL = 4, 5, 6
_HOST_CHARACTERS_MAX: Final = 255
_LOOK_SECONDS: Final = 0.001


class SyslogDestination:
    """Sends batches to a syslog server over TLS, and verifies its certificate and host name."""

    def __init__(
        self,
        host: str,
        port: int,
        line: Line,
        *,
        ca_file: Path | None,
        certificate_file: Path | None,
        private_key_file: Path | None,
        seconds_max: float,
    ) -> None:
        """Creates the destination.

        Args:
            host: Name or address, which the certificate must name.
            port: The port; 6514 is the usual one.
            line: The format.
            ca_file: Authorities of the server's certificate; None: those of the system.
            certificate_file: The sender's own certificate.
            private_key_file: Its private key.
            seconds_max: For one batch, connection and confirmation included.

        Raises:
            OSError: A file cannot be used.
        """
        self._address = (host, port)
        self._line = line
        self._seconds_max = seconds_max
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate_file is not None:
            self._tls.load_cert_chain(certificate_file, private_key_file, password="")
        self._own_name = _own_name()

    def deliver(self, records: Sequence[Record]) -> None:
        """See `Destination.deliver`."""
        content = b"".join(frame(record, self._line, self._own_name) for record in records)
        deadline = time.monotonic() + self._seconds_max
        try:
            with socket.create_connection(self._address, self._seconds_max) as plain:
                plain.settimeout(_seconds_until(deadline))
                with self._tls.wrap_socket(plain, server_hostname=self._address[0]) as connection:
                    _send(connection, content, deadline)
                    _await_end(connection, deadline)
        except ssl.SSLCertVerificationError as error:
            raise DeliveryFailed(
                f"the certificate of the syslog server is not accepted: {error.verify_message}"
            ) from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DeliveryFailed(f"the syslog server did not confirm: {reason}") from None


def frame(record: Record, line: Line, own_name: str = "-") -> bytes:
    """Returns the message of a record, after its length.

    Texts are shortened until the message fits into MESSAGE_BYTES_MAX.

    Args:
        record: The record.
        line: The format.
        own_name: HOSTNAME of the message.
    """
    when = rfc3339(record_nanoseconds(record) // 1_000_000)
    if isinstance(record, AdministrationRecord):
        severity, kind = _NOTICE, "change"
    else:
        severity = _INFORMATIONAL if record.decision == DECISION_ALLOW else _WARNING
        kind = "decision"
    head = f"<{_FACILITY * 8 + severity}>1 {when} {own_name} pdp - {kind} - "
    for limit in _SHORTER:
        message = (head + line(record, limit)).encode()
        if len(message) <= MESSAGE_BYTES_MAX:
            break
    return b"%d %b" % (len(message), message)


def _send(connection: ssl.SSLSocket, content: bytes, deadline: float) -> None:
    view = memoryview(content)
    while view:
        connection.settimeout(_seconds_until(deadline))
        view = view[connection.send(view[: 1 << 14]) :]


def _await_end(connection: ssl.SSLSocket, deadline: float) -> None:
    """Ends the connection, and waits until the receiver has read all of it.

    Three facts together prove that: the receiver's kernel has acknowledged every byte, it had not
    ended the connection before our close_notify, and its end is not a reset, which the kernel sends
    for a socket that is closed with unread data.

    Raises:
        OSError: It did not read all.
    """
    connection.settimeout(0)
    is_acknowledged = False
    while not is_acknowledged:
        is_acknowledged = not any(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
        with contextlib.suppress(ssl.SSLWantReadError):
            connection.recv(1)
            raise ConnectionAbortedError("it ended the connection too early")
        _seconds_until(deadline)
        time.sleep(0 if is_acknowledged else _LOOK_SECONDS)
    connection.settimeout(_seconds_until(deadline))
    # Closed without its own close_notify, as rsyslog does.
    with contextlib.suppress(ssl.SSLEOFError):
        connection.unwrap()


def _seconds_until(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("took too long")
    return seconds


def _own_name() -> str:
    """HOSTNAME: printable ASCII without spaces, or `-`."""
    name = socket.gethostname()[:_HOST_CHARACTERS_MAX]
    return name if name and all("!" <= character <= "~" for character in name) else "-"
