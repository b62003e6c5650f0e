"""The method table: every RPC of ours, who may call it, and what answers it.

A method that is not in the table does not exist. What answers is a plain function from message to
message, which knows nothing of gRPC.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from google.protobuf.message import Message

from pdp.settings import Capability
from pdp.wire.callers import Caller

Answerer = Callable[[Any, Caller], Message]


Soon: TypeAlias = Message | Callable[[], Awaitable[Message]]
"""An answer that was made without waiting, or what makes it and waits for the audit at most."""

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
    in_place_of: Callable[[Exception], Message | None] | None = None
    """What is said in place of an error's status, where that could be taken for leave to go on."""

    @property
    def path(self) -> str:
        """The HTTP/2 `:path`, exactly."""
        return f"/{self.service}/{self.name}"


class Feed(Protocol):
    """What one open stream has to say. It is asked, and never waits; one thread at a time asks."""

    @property
    def due_at(self) -> float:
        """time.monotonic() of when to ask again at the latest."""

    @property
    def behind(self) -> bool:
        """Whether there was more to say than was said: to be asked again as soon as that is out."""

    def take(self) -> Sequence[bytes] | None:
        """The serialized messages that are to be sent now, in order; None: that was all.

        Raises PdpError where the stream cannot go on.
        """

    def close(self) -> None:
        """The stream is over. Called once."""


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """One RPC that answers a request by a stream."""

    service: str
    name: str
    capability: Capability
    request: type[Message]
    open: Callable[[Any, Caller], Feed]
    listen: Callable[[Callable[[], None]], None]
    """Has a function called, which must not wait, whenever feeds may have more to say."""
    request_bytes_max: int

    @property
    def path(self) -> str:
        """The HTTP/2 `:path`, exactly."""
        return f"/{self.service}/{self.name}"


AnyMethod: TypeAlias = Method | StreamMethod
