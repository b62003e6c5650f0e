"""The method table: every RPC of ours, who may call it, and what answers it.

A method that is not in the table does not exist. What answers is a plain function from message to
message, which knows nothing of gRPC.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from pdp.settings import Capability
from pdp.wire.callers import Caller

Answerer = Callable[[Any, Caller], Message]


@dataclass(frozen=True, slots=True)
class Soon:
    """An answer that was made without waiting."""

    message: Message
    settle: Callable[[], Awaitable[None]] | None
    """Where there is one, this may be answered only after it: it waits for the audit."""


AnswererAtOnce = Callable[[Any, Caller], Soon]


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
    at_once: AnswererAtOnce | None = None
    """The same answer for an event loop. Raises errors.MustWait where something else than the audit
    would have to be waited for; then nothing has happened, and `answer` does it all."""

    @property
    def path(self) -> str:
        """The HTTP/2 `:path`, exactly."""
        return f"/{self.service}/{self.name}"
