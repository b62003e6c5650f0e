"""The method table: every RPC of ours, who may call it, and what answers it.

A method that is not in the table does not exist. What answers is a plain function from message to
message, which knows nothing of gRPC.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from pdp.settings import Capability
from pdp.wire.callers import Caller

Answerer = Callable[[Any, Caller], Message]


@dataclass(frozen=True, slots=True)
class Method:
    """One unary RPC."""

    service: str
    """Full name of the service, e.g. `pdpapi.v1.PolicyDecisionService`."""
    name: str
    capability: Capability
    request: type[Message]
    answer: Answerer
    request_bytes_max: int

    @property
    def path(self) -> str:
        """The HTTP/2 `:path`, exactly."""
        return f"/{self.service}/{self.name}"
