"""A real `pdp sidecar` process, and what tests look at from outside."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from pdpapi.v1.administration_service_pb2 import (
    GetUserRequest,
    UpdateUserRequest,
    UserStatus,
)

from tests.kit.ports import free_port
from tests.kit.server import ServerProcess, Stubs, stubs_on


@dataclass
class SidecarProcess(ServerProcess):
    """A sidecar in a directory of its own, on a unix socket in it."""

    upstreams: Sequence[int] = ()
    """TCP ports on 127.0.0.1."""
    command: str = "sidecar"

    def __post_init__(self) -> None:
        self.port, self.http_port = 0, free_port()
        self.socket = f"unix://{self.directory / 'pdp.sock'}"
        values = {
            "UPSTREAMS": [f"127.0.0.1:{port}" for port in self.upstreams],
            "LISTEN": self.socket,
            "HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "AUDIT_DIRECTORY": str(self.directory / "audit"),
            # A slow machine must not change what a test is about.
            "DEADLINE_SECONDS": "5",
            **self.settings,
        }
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PDP_")},
            **{
                f"PDP_SIDECAR_{name}": value if isinstance(value, str) else json.dumps(value)
                for name, value in values.items()
            },
        }

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        with grpc.insecure_channel(self.socket, (("grpc.use_local_subchannel_pool", 1),)) as one:
            yield one

    def is_live(self) -> bool:
        return self.http("/readyz")[0] == 200


@contextmanager
def running_sidecar(
    directory: Path, *upstreams: int, ready: bool = True, **settings: Any
) -> Iterator[tuple[SidecarProcess, Stubs]]:
    """A sidecar of the servers on these ports, and stubs to ask it."""
    sidecar = SidecarProcess(directory, settings, upstreams=upstreams)
    sidecar.start(ready=ready)
    try:
        with sidecar.channel() as channel:
            grpc.channel_ready_future(channel).result(20)
            yield sidecar, stubs_on(channel)
    finally:
        if sidecar.process is not None and sidecar.process.poll() is None:
            sidecar.stop()


def metric(process: ServerProcess, name: str, **labels: str) -> float:
    """The sum of a metric over what has these labels; 0: there is none."""
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", process.http("/metrics")[1], re.MULTILINE)
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(float(value) for has, value in found if all(text in has for text in wanted))


def set_status(stubs: Stubs, user: str, *, active: bool) -> int:
    """Lets a user in, or nobody of that name; the revision."""
    stored = stubs.administration.GetUser(GetUserRequest(id=user), timeout=10).user
    stored.status = UserStatus.USER_STATUS_ACTIVE if active else UserStatus.USER_STATUS_DISABLED
    revision: int = stubs.administration.UpdateUser(
        UpdateUserRequest(user=stored), timeout=10
    ).revision
    return revision
