"""A channel to a running server, for the commands that ask one."""

from typing import Annotated

import grpc
import typer
from pdp_client import TlsOptions, open_channel

Server = Annotated[
    str, typer.Option(envvar="PDP_SERVER", help="host:port or unix:PATH of a running server.")
]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="PDP_API_KEY", help="This caller's API key.", show_default=False),
]
Ca = Annotated[
    str | None,
    typer.Option(envvar="PDP_CA_FILE", help="Certificate authority of the server (TLS)."),
]
DEFAULT_SERVER = "127.0.0.1:50051"
DEADLINE_SECONDS = 10.0


def channel_to(server: str, api_key: str | None, ca: str | None) -> grpc.Channel:
    """Opens a channel; nothing is sent yet."""
    return open_channel(server, tls=TlsOptions(ca=ca) if ca else None, api_key=api_key)
