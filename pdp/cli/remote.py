"""A channel to a running server, for the commands that ask one."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    import grpc
    from pdp_client import TlsOptions

from pdp.cli.output import fail, waiting
from pdp.cli.profiles import Connection

R = TypeVar("R")

DEADLINE_SECONDS = 3.0
PROBE_SECONDS = 1.0


@contextlib.contextmanager
def connected(connection: Connection) -> "Iterator[grpc.Channel]":
    """A channel to the server. A status that it answers with ends the command: exit status 2."""
    import grpc
    from pdp_client.transport import open_channel

    tls = connection.tls()
    with open_channel(connection.server, tls, connection.api_key, insecure=False) as channel:
        try:
            yield channel
        except grpc.RpcError as error:
            code = error.code()
            problem = None
            if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                problem = why_no_answer(connection.server, tls)
            fail(problem or f"{code.name}: {error.details()}{_advice(code)}")
            raise typer.Exit(2) from None


def _advice(code: "grpc.StatusCode") -> str:
    """What to do about a status, if that can be said."""
    return {
        "PERMISSION_DENIED": "; `pdp whoami` shows what this caller may do",
        "UNAUTHENTICATED": "; set PDP_API_KEY, or choose a profile with --context",
        "UNIMPLEMENTED": "; the server is older than this command, or a sidecar",
    }.get(code.name, "")


def method_of(
    method: Callable[..., R], connection: Connection, deadline_seconds: float = DEADLINE_SECONDS
) -> Callable[..., R]:
    """The unary method of a stub, with the caller's key and a deadline."""
    from pdp_client.transport import caller_metadata

    def ask(request: Any) -> R:
        with waiting(f"asking {connection.server}"):
            return method(
                request,
                timeout=deadline_seconds,
                metadata=caller_metadata(connection.api_key),
            )

    return ask


def why_no_answer(server: str, tls: "TlsOptions | None") -> str | None:
    """Why a server did not answer: nothing listens, or only one side speaks TLS; None: unknown.
    The messages of gRPC are unclear, or missing."""
    family, address = _address(server)
    if address is None:
        return None
    try:
        with socket.socket(family) as probe:
            probe.settimeout(PROBE_SECONDS)
            probe.connect(address)
            speaks_tls, problem = _handshake(probe, tls, server)
    except OSError as error:
        return f"cannot connect to {server}: {error.strerror or error}; is `pdp serve` running?"
    if speaks_tls is None and tls is not None and _speaks_clear_http2(family, address):
        speaks_tls = False
    if speaks_tls and tls is None:
        return f"{server} expects TLS: name its authority with --ca or PDP_CA_FILE"
    if speaks_tls is False and tls is not None:
        return f"{server} does not speak TLS: leave out --ca, PDP_CA_FILE and certificates"
    return problem


def _address(server: str) -> tuple[socket.AddressFamily, Any]:
    """Family and address; the address is None where there may be several."""
    if server.startswith("unix:"):
        return socket.AF_UNIX, server.removeprefix("unix:").removeprefix("//")
    host, _, port = server.removeprefix("dns:///").rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return socket.AF_INET, None
    return found[0][0], found[0][4]


def _speaks_clear_http2(family: socket.AddressFamily, address: Any) -> bool:
    """Whether it answers the connection preface of HTTP/2 (RFC 9113, 3.4) with a SETTINGS frame."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4" + bytes(5)
    with contextlib.suppress(OSError), socket.socket(family) as probe:
        probe.settimeout(PROBE_SECONDS)
        probe.connect(address)
        probe.sendall(preface)
        return probe.recv(4)[3:] == b"\4"
    return False


def _handshake(
    probe: socket.socket, tls: "TlsOptions | None", server: str
) -> tuple[bool | None, str | None]:
    """Whether the server speaks TLS (None: unknown), and what is wrong with a certificate."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    host = server.removeprefix("dns:///").rpartition(":")[0].strip("[]")
    if tls is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif tls.ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(str(tls.ca))
    if tls is not None and tls.cert is not None and tls.key is not None:
        context.load_cert_chain(str(tls.cert), str(tls.key), password="")
    try:
        channel = context.wrap_socket(probe, server_hostname=host or None)
        with channel, contextlib.suppress(TimeoutError):
            channel.recv(1)  # a server that wants a certificate says so only now (TLS 1.3)
    except ssl.SSLCertVerificationError as error:
        return True, f"the certificate of {server} is not accepted: {error.verify_message}"
    except ssl.SSLError as error:
        if "CERTIFICATE" in (error.reason or ""):
            return True, f"{server} wants a client certificate: give --certificate and --key"
        return False, None
    except TimeoutError:
        return None, f"{server} accepts connections and says nothing"
    except OSError:
        return False, None
    return True, None
