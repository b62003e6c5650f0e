"""Answers Check and BatchCheck: from what is kept, or as upstream does, or not at all.

An answer is given again in two ways. As CACHED, within a lease: an allow keeps its decision id, a
denial is a new decision. As STAYED_OPEN, for a while after the lease has ended, where no server is
in reach and the settings say so of each permission asked about: allows only, each a new decision.
What is a new decision is on record before it goes out.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from pdp_client.cache import DecisionCache, Fresh, Given, key_of
from pdpapi.v1.core_pb2 import ANSWER_SOURCE_STAYED_OPEN, DECISION_DENY

from pdp.audit import Recorder, new_decision_id
from pdp.clock import Clock
from pdp.concurrency.waiting import in_pool
from pdp.errors import LimitExceeded
from pdp.gauges import Gauges
from pdp.limits import BATCH_ITEMS_MAX
from pdp.model import AnswerSource, DecisionRecord, Effect, ResourceRef
from pdp.settings import SidecarSettings
from pdp.sidecar.exchanges import BATCH, CHECK, REASONS, Exchange, Kept, actor_of
from pdp.sidecar.upstreams import NoAnswer, Upstreams
from pdp.wire.callers import Caller
from pdp.wire.methods import Method
from pdp.wire.services.decision import SERVICE

STAYED_OPEN = (
    "allowed before; the sidecar is cut off, and its settings let this stay open for a while"
)
_FINGERPRINT_DIGITS = 16


@dataclass(slots=True)
class Counts:
    """For metrics; they only ever grow."""

    hits: int = 0
    misses: int = 0
    stayed_open: int = 0


class Answering:
    """Lives on one event loop; upstream is asked in threads of a bounded pool."""

    def __init__(
        self,
        settings: SidecarSettings,
        cache: DecisionCache[Kept],
        upstreams: Upstreams,
        recorder: Recorder,
        *,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._upstreams = upstreams
        self._recorder = recorder
        self._clock = clock
        self.asking = ThreadPoolExecutor(settings.threads, thread_name_prefix="upstream")
        """Where upstream is asked."""
        self.counts = Counts()

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "pdp_sidecar_hits": (
                "Requests that were answered from what is kept.",
                lambda: self.counts.hits,
            ),
            "pdp_sidecar_misses": (
                "Requests that upstream answered.",
                lambda: self.counts.misses,
            ),
            "pdp_sidecar_stayed_open": (
                "Requests that were answered without a lease, as the settings let it.",
                lambda: self.counts.stayed_open,
            ),
            "pdp_sidecar_live": (
                "1 while there is a lease: kept answers are given.",
                lambda: float(self._cache.live),
            ),
            "pdp_sidecar_entries": ("Answers that are kept.", lambda: self._cache.size),
        }

    def methods(self) -> Sequence[Method]:
        """The methods of PolicyDecisionService."""
        return self._method(CHECK), self._method(BATCH)

    def _method(self, exchange: Exchange) -> Method:
        async def answer(request: Any, caller: Caller) -> Message:
            items = len(exchange.items(request))
            # As upstream would say, and before anything is done with each of them.
            if items > BATCH_ITEMS_MAX:
                raise LimitExceeded("batch_items_max", BATCH_ITEMS_MAX, items)
            key = key_of(exchange.path, request)
            try:
                return await self._answer(exchange, key, request, caller)
            except NoAnswer as error:
                failure = error
            kept = None
            if failure.out_of_reach:
                kept = await self._stay_open(exchange, key, request, caller)
            else:
                # Somebody was in reach, and did not say yes: no older yes stays open after that.
                self._cache.forget(key)
            if kept is None:
                raise failure.error
            return kept

        return Method(
            SERVICE, exchange.name, "decide", exchange.request, answer, exchange.request_bytes_max
        )

    async def _answer(
        self, exchange: Exchange, key: bytes, request: Any, caller: Caller
    ) -> Message:
        """Raises NoAnswer, AuditUnavailable."""

        def ask() -> Fresh[Kept]:
            answer = self._upstreams.ask(exchange.path, request, exchange.response)
            return exchange.fresh(request, answer)

        def get_or_ask() -> Given[Kept]:
            return self._cache.get_or_ask(key, ask, wait_seconds=self._settings.deadline_seconds)

        found = self._cache.find(key)
        if found is not None:
            given = Given(found, cached=True)
        else:
            given = await in_pool(self.asking, get_or_ask)
        kept, again = given.answer, None
        if given.cached and not kept.denies:
            again = kept.again
        elif given.cached:
            again = await self._again(exchange, request, kept, caller, AnswerSource.CACHED)
            # The write took time. An answer that may no longer be given is asked for again.
            if self._cache.find(key) is not kept:
                fresh = await in_pool(self.asking, ask)
                kept, again = fresh.answer, None
        if again is None:
            self.counts.misses += 1
        else:
            self.counts.hits += 1
        message: Message = kept.fresh if again is None else again
        return message

    async def _stay_open(
        self, exchange: Exchange, key: bytes, request: Any, caller: Caller
    ) -> Message | None:
        """The answer that was given before, where the settings let it stay open. Raises
        AuditUnavailable."""
        items = exchange.items(request)
        seconds = min((self._settings.open_seconds(one.permission) for one in items), default=0.0)
        if not seconds:
            return None
        kept = self._cache.find(key, overtime_seconds=seconds)
        if kept is None or kept.denies:
            return None
        again: Message = await self._again(
            exchange, request, kept, caller, AnswerSource.STAYED_OPEN
        )
        if self._cache.find(key, overtime_seconds=seconds) is not kept:
            return None
        self.counts.stayed_open += 1
        return again

    async def _again(
        self, exchange: Exchange, request: Any, kept: Kept, caller: Caller, source: AnswerSource
    ) -> Any:
        """A new answer, put on record: all that it denies, or all that stayed open."""
        message: Any = exchange.response()
        message.CopyFrom(kept.again)
        token = hashlib.sha256(request.actor_token.encode()).hexdigest()[:_FINGERPRINT_DIGITS]
        actor = actor_of(message.actor)
        now = self._clock()
        records = []
        results = []
        for item, result in zip(exchange.items(request), exchange.results(message), strict=True):
            denied = result.decision == DECISION_DENY
            if source is AnswerSource.CACHED and not denied:
                continue
            result.decision_id = new_decision_id()
            if source is AnswerSource.STAYED_OPEN:
                result.source = ANSWER_SOURCE_STAYED_OPEN
                result.message = STAYED_OPEN
                result.ClearField("reusable_until")
            resource = item.resource
            results.append(result)
            records.append(
                DecisionRecord(
                    decision_id=result.decision_id,
                    decided_at=now,
                    effect=Effect.DENY if denied else Effect.ALLOW,
                    reason=REASONS[result.reason],
                    permission=item.permission,
                    caller=caller.name,
                    revision=result.revision,
                    token_fingerprint=token,
                    actor=actor,
                    resource=ResourceRef(resource.type, resource.id)
                    if item.HasField("resource")
                    else None,
                    rule_id=result.rule_id or None,
                    grant_id=result.grant_id or None,
                    source=source,
                )
            )
        ids = await self._recorder.record(records)
        for result, decision_id in zip(results, ids, strict=True):
            result.decision_id = decision_id
        return message
