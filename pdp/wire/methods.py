"""The method table: every RPC, the callers that may use it, and the function that answers it.

A method that is not in the table does not exist. The functions take and return messages and know
nothing of gRPC, Connect or HTTP.
"""

from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from pdp.concurrency.waiting import in_pool
from pdp.settings import Capability
from pdp.wire.callers import Caller

Access = Capability | Literal["anybody", "caller"]
"""The callers that may use a method: those with a capability, all, or all configured ones."""
Answerer = Callable[[Any, Caller], Coroutine[Any, Any, Message]]


@dataclass(frozen=True, slots=True)
class _Rpc:
    service: str
    """Full name of the service, e.g. `pdpapi.v1.PolicyDecisionService`."""
    name: str
    access: Access
    request: type[Message]
    label: str = field(init=False)
    """Its name in metrics."""

    def __post_init__(self) -> None:
        # Envoy's method has the same name as one of ours.
        is_ours = self.service.startswith("pdpapi.")
        label = self.name if is_ours else f"{self.service.rpartition('.')[2]}/{self.name}"
        object.__setattr__(self, "label", label)

    @property
    def path(self) -> str:
        """The HTTP `:path`, exactly."""
        return f"/{self.service}/{self.name}"


@dataclass(frozen=True, slots=True)
class Method(_Rpc):
    """A unary RPC."""

    answer: Answerer
    request_bytes_max: int
    in_place_of: Callable[[Exception], Message | None] | None = None
    """The message that replaces an error's status, if a client could take the status for an allow.
    """


class Subscription(Protocol):
    """The messages of an open stream. Called on the event loop; never waits."""

    @property
    def due_at(self) -> float:
        """The latest time to call `take` again, as a time.monotonic()."""

    def take(self) -> Sequence[bytes] | None:
        """The serialized messages to send now, in order; None: the stream is complete.

        Raises PdpError if the stream cannot continue.
        """

    def close(self) -> None:
        """Releases the resources of the stream. Called once."""


@dataclass(frozen=True, slots=True)
class StreamMethod(_Rpc):
    """An RPC that answers a request with a stream."""

    open: Callable[[Any, Caller], Subscription]
    listen: Callable[[Callable[[], None]], None]
    """Registers a function to call, from any thread, when streams may have messages."""
    request_bytes_max: int


@dataclass(frozen=True, slots=True)
class DialogMethod(_Rpc):
    """An RPC that answers each message of a stream with a message (server reflection)."""

    answer: Callable[[Any], Message]
    request_bytes_max: int


AnyMethod: TypeAlias = Method | StreamMethod | DialogMethod


def message_types(service: str, name: str) -> tuple[type[Message], type[Message]]:
    """The request and the response of a method of the contract. Raises KeyError for another."""
    found = Default().FindMethodByName(f"{service}.{name}")
    return GetMessageClass(found.input_type), GetMessageClass(found.output_type)


def rpc(
    service: str, name: str, access: Access, answer: Answerer, request_bytes_max: int
) -> Method:
    """A unary RPC of the contract, which knows its request. Raises KeyError for another."""
    request, _ = message_types(service, name)
    return Method(service, name, access, request, answer, request_bytes_max)


def blocking(pool: ThreadPoolExecutor, answer: Callable[[Any, Caller], Message]) -> Answerer:
    """An answerer that runs a blocking function (SQL, files) in a thread of `pool`."""

    async def answer_in_pool(request: Any, caller: Caller) -> Message:
        return await in_pool(pool, lambda: answer(request, caller))

    return answer_in_pool
