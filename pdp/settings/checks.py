"""Checks before the start: are certificates and addresses usable?

They report errors in our own text, and before several processes start: each of them would fail in
the same way and be restarted again and again.
"""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from pdp.settings.addresses import socket_address
from pdp.settings.callers import TlsSettings


def check_certificate(
    certificate: Path, private_key: Path, authority: Path | None, name: str
) -> None:
    """Checks a certificate, its private key and an authority (PEM files).

    Args:
        certificate: The certificate chain.
        private_key: Its private key, without a password.
        authority: Certificates of authorities; None: no check.
        name: The setting that names the files, for messages.

    Raises:
        ValueError: The files are invalid, or do not belong together.
        OSError: A file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for file in (certificate, private_key, authority):
        if file is not None:
            with file.open("rb"):  # the error of this names the file
                pass
    try:
        # The empty password avoids a prompt on the terminal for an encrypted key.
        context.load_cert_chain(certificate, private_key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(
                f"{name}: the private key {private_key} does not belong to the certificate "
                f"{certificate}"
            ) from None
        raise ValueError(
            f"{name}: {certificate} and {private_key} are not a PEM certificate and its private "
            "key without a password"
        ) from None
    _check_authority(context, authority, name)


def check_tls(tls: TlsSettings | None) -> None:
    """Checks the files of a listener's TLS. Raises as `check_certificate`."""
    if tls is not None:
        check_certificate(tls.certificate_file, tls.private_key_file, tls.client_ca_file, "tls")


def check_free(listen: str, *, shared: bool) -> None:
    """Checks that an address can be bound.

    Args:
        listen: `host:port` or `unix:path`.
        shared: Whether several processes of `pdp serve` share it.

    Raises:
        OSError: The address is in use or cannot be used.
    """
    family, address = socket_address(listen)
    with socket.socket(family) as probe:
        if family is socket.AF_UNIX:
            _try(listen, lambda: _check_socket_file(probe, address))
            return
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _try(listen, lambda: probe.bind(address))


def _check_authority(context: ssl.SSLContext, authority: Path | None, name: str) -> None:
    if authority is None:
        return
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError:
        raise ValueError(f"{name}: {authority} holds no PEM certificate") from None


def _check_socket_file(probe: socket.socket, path: str) -> None:
    """Accepts the socket file of a killed process, but not a socket that answers."""
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(2, "its directory is not there")
    try:
        probe.settimeout(1)
        probe.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return
    raise OSError(98, "Address already in use")


def _try(listen: str, use: Callable[[], None]) -> None:
    try:
        use()
    except OSError as error:
        raise OSError(f"cannot listen on {listen}: {error.strerror or error}") from None
