"""Check and BatchCheck for a sidecar: what an answer depends on, and what it contains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from pdp_client.cache import Fresh, Touched
from pdp_client.errors import PdpUnavailable
from pdp_client.messages import decision_from_check, decisions_from_batch
from pdpapi.v1.core_pb2 import (
    ANSWER_SOURCE_CACHED,
    ANSWER_SOURCE_UNSPECIFIED,
    DECISION_DENY,
    DecisionReason,
)
from pdpapi.v1.core_pb2 import Actor as WireActor
from pdpapi.v1.decision_service_pb2 import (
    BatchCheckRequest,
    BatchCheckResponse,
    CheckItem,
    CheckRequest,
    CheckResponse,
)

from pdp.errors import UpstreamUnavailable
from pdp.limits import MESSAGE_BYTES_MAX
from pdp.model import Actor, Reason
from pdp.sidecar.upstreams import Answer, NoAnswer
from pdp.wire.services.decision import CHECK_BYTES_MAX, SERVICE

REASONS = {DecisionReason.Value(f"DECISION_REASON_{reason.name}"): reason for reason in Reason}

Items = Sequence[CheckRequest | CheckItem]
Results = Sequence[CheckResponse]


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer of upstream, and the form in which it is served from the cache."""

    fresh: Any
    cached: Any
    """The same, marked as CACHED. Must not be modified."""
    denies: bool
    """Whether a result is a denial."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A method: Check with one question, or BatchCheck with a list."""

    name: str
    request: type[Message]
    response: type[Message]
    request_bytes_max: int
    items: Callable[[Any], Items]
    results: Callable[[Any], Results]
    validate: Callable[[Any, int], object]
    """Raises PdpUnavailable if a response does not answer this number of questions."""

    @property
    def path(self) -> str:
        """The HTTP/2 `:path`, exactly."""
        return f"/{SERVICE}/{self.name}"

    def fresh(self, request: Any, answer: Answer) -> Fresh[CachedAnswer]:
        """The cache entry of an answer. Raises NoAnswer if the response is not an answer."""
        message, items = answer.message, self.items(request)
        try:
            self.validate(message, len(items))
        except PdpUnavailable as error:
            raise NoAnswer(UpstreamUnavailable(error.message), out_of_reach=False) from None
        cached = self.response()
        cached.CopyFrom(message)
        for result in self.results(cached):
            result.source = ANSWER_SOURCE_CACHED
            # Counted from when the request was sent, which is earlier than the next request.
            result.ClearField("reusable_for")
        results = self.results(message)
        denies = any(result.decision == DECISION_DENY for result in results)
        return Fresh(
            CachedAnswer(message, cached, denies),
            answer.sent_at,
            results[0].epoch,
            min(result.revision for result in results),
            _reusable_seconds(results),
            _touched(message.actor, items, results),
            len(results),
        )


CHECK = Exchange(
    "Check",
    CheckRequest,
    CheckResponse,
    CHECK_BYTES_MAX,
    lambda request: (request,),
    lambda response: (response,),
    lambda response, _: decision_from_check(response),
)
BATCH = Exchange(
    "BatchCheck",
    BatchCheckRequest,
    BatchCheckResponse,
    MESSAGE_BYTES_MAX,
    lambda request: request.items,
    lambda response: response.results,
    decisions_from_batch,
)


def actor_of(message: WireActor) -> Actor | None:
    """The actor of an answer; None: the token was refused."""
    if not message.user_id:
        return None
    return Actor(
        user_id=message.user_id,
        session_id=message.session_id,
        organization_id=message.organization_id or None,
        impersonator_id=message.impersonator_id or None,
    )


def _reusable_seconds(results: Results) -> float | None:
    """Seconds for which all results can be reused; None: not at all, or unknown, or they cannot be
    logged from the cache."""
    if any(
        not result.HasField("reusable_for")
        or result.source != ANSWER_SOURCE_UNSPECIFIED
        or result.epoch != results[0].epoch
        or result.reason not in REASONS
        for result in results
    ):
        return None
    return min(result.reusable_for.seconds + result.reusable_for.nanos / 1e9 for result in results)


def _touched(actor: WireActor, items: Items, results: Results) -> Touched:
    resources = {
        (item.resource.type, item.resource.id) for item in items if item.HasField("resource")
    }
    resources.update(
        (ancestor.type, ancestor.id) for result in results for ancestor in result.ancestors
    )
    return Touched(actor.user_id, actor.organization_id, frozenset(resources))
