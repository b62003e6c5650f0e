"""A channel to a running server, for the commands that ask one."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import grpc
    from pdp_client import TlsOptions

Server = Annotated[
    str, typer.Option(envvar="PDP_SERVER", help="host:port or unix:PATH of a running server.")
]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="PDP_API_KEY", help="This caller's API key.", show_default=False),
]
Ca = Annotated[
    str | None, typer.Option(envvar="PDP_CA_FILE", help="Authority of the server's certificate.")
]
Certificate = Annotated[
    str | None, typer.Option(envvar="PDP_CERTIFICATE_FILE", help="This caller's certificate.")
]
Key = Annotated[
    str | None, typer.Option(envvar="PDP_KEY_FILE", help="Private key of the certificate.")
]
DEFAULT_SERVER = "127.0.0.1:50051"
DEADLINE_SECONDS = 3.0


def tls_of(ca: str | None, certificate: str | None, key: str | None) -> "TlsOptions | None":
    """TLS where a file is named, none otherwise (which the client allows on loopback only)."""
    from pdp_client import TlsOptions

    if ca is None and certificate is None:
        return None
    return TlsOptions(ca=ca, cert=certificate, key=key)


def channel_to(server: str, api_key: str | None, tls: "TlsOptions | None") -> "grpc.Channel":
    """Opens a channel; nothing is sent yet. Send `caller_metadata(api_key)` with each call."""
    from pdp_client.transport import open_channel

    return open_channel(server, tls, api_key, insecure=False)
