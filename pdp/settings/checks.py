"""What can be known before anything starts: are certificates and addresses usable?

Said here in our own words, and before several processes are started: each of them would fail alike
and be started again and again.
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
    """Raises ValueError or OSError where a certificate, its key and an authority (PEM files) do not
    go together. `name` is the setting that names them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for file in (certificate, private_key, authority):
        if file is not None:
            with file.open("rb"):  # whose error names the file
                pass
    try:
        # An empty password: without one, a key that has one would be asked for on the terminal.
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
    """The same for the TLS of a listener."""
    if tls is not None:
        check_certificate(tls.certificate_file, tls.private_key_file, tls.client_ca_file, "tls")


def check_free(listen: str, *, shared: bool) -> None:
    """Raises OSError where an address (`host:port` or `unix:path`) is taken or cannot be used.

    `shared`: by several processes of one `pdp serve`.
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
    """A file that a killed process left behind is replaced; a socket that answers is not."""
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
