"""The front door: one of two, chosen by settings. Both let through the same gate."""

from collections.abc import Sequence
from typing import Protocol

from pdp.settings import CallerSettings, TlsSettings
from pdp.wire.shares import Places

CLOSING_SECONDS = 0.05
"""For so long a closing door still answers, with what is worth asking again."""


class DoorSettings(Protocol):
    """What a door reads of the settings."""

    @property
    def listen(self) -> str:
        """`host:port` or `unix:path`."""

    @property
    def processes(self) -> int:
        """How many share the port."""

    @property
    def threads(self) -> int:
        """For RPCs."""

    @property
    def tls(self) -> TlsSettings | None:
        """None: clear text."""

    @property
    def callers(self) -> Sequence[CallerSettings]:
        """Who may call."""

    @property
    def streams_share(self) -> int:
        """How many streams one caller may have open."""


class Door(Protocol):
    """What the process needs of its front door."""

    @property
    def port(self) -> int:
        """The TCP port; 0 for a unix socket."""

    def is_open(self) -> bool:
        """Whether the port answers."""

    def set_serving(self, *, serving: bool) -> None:
        """What `grpc.health.v1` answers from now on."""

    def close(self, grace_seconds: float) -> None:
        """Refuses what is new, finishes what is in flight."""


def rpcs_max(settings: DoorSettings) -> int:
    """How many RPCs a process takes on at once; what is beyond is RESOURCE_EXHAUSTED."""
    return settings.threads * 32


def rpc_places(settings: DoorSettings) -> Places:
    """The places for RPCs. Where there are several callers, one may take three quarters of them."""
    total = rpcs_max(settings)
    each = total * 3 // 4 if len(settings.callers) > 1 else total
    return Places("concurrent_rpcs_share", each, total)
