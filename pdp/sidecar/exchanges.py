"""Check and BatchCheck as a sidecar sees them: what an answer depends on, and what is in it."""

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
class Kept:
    """An answer of upstream, and how it is given again."""

    fresh: Any
    again: Any
    """The same, marked as CACHED. Not to be altered."""
    denies: bool
    """Whether one of them is a denial."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One of the two methods. They differ in whether there is one question or a list."""

    name: str
    request: type[Message]
    response: type[Message]
    request_bytes_max: int
    items: Callable[[Any], Items]
    results: Callable[[Any], Results]
    validate: Callable[[Any, int], object]
    """Raises PdpUnavailable where a response is no answer to so many questions."""

    @property
    def path(self) -> str:
        """The HTTP/2 `:path`, exactly."""
        return f"/{SERVICE}/{self.name}"

    def fresh(self, request: Any, answer: Answer) -> Fresh[Kept]:
        """What the cache has to know of an answer. Raises NoAnswer where it is none."""
        message, items = answer.message, self.items(request)
        try:
            self.validate(message, len(items))
        except PdpUnavailable as error:
            raise NoAnswer(UpstreamUnavailable(error.message), out_of_reach=False) from None
        again = self.response()
        again.CopyFrom(message)
        for result in self.results(again):
            result.source = ANSWER_SOURCE_CACHED
            # It counts from when the question was sent: from an earlier moment than the next.
            result.ClearField("reusable_for")
        results = self.results(message)
        denies = any(result.decision == DECISION_DENY for result in results)
        return Fresh(
            Kept(message, again, denies),
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
    """For how long all of them hold; None: not at all, or it is not known, or they
    cannot be put on record again."""
    if any(
        not result.HasField("reusable_for")
        or result.source != ANSWER_SOURCE_UNSPECIFIED
        or result.epoch != results[0].epoch
        or result.reason not in REASONS
        for result in results
    ):
        return None
    return min(one.reusable_for.seconds + one.reusable_for.nanos / 1e9 for one in results)


def _touched(actor: WireActor, items: Items, results: Results) -> Touched:
    resources = {
        (item.resource.type, item.resource.id) for item in items if item.HasField("resource")
    }
    resources.update((one.type, one.id) for result in results for one in result.ancestors)
    return Touched(actor.user_id, actor.organization_id, frozenset(resources))
