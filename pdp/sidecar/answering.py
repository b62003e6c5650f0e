"""Answers Check and BatchCheck: from the cache, or from upstream, or with an error.

A cached answer is served in two ways. As CACHED, within a lease: an allow keeps its decision id, a
denial is a new decision. As STAYED_OPEN, in the fail-open window after the lease, if no server is
reachable and the settings name each permission of the request: allows only, each a new decision. A
new decision is logged before it is sent.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from pdp_client.cache import DecisionCache, Fresh, Given, key_of
from pdpapi.v1.core_pb2 import ANSWER_SOURCE_STAYED_OPEN, DECISION_DENY

from pdp.audit import AnswerSource, DecisionRecord, Recorder, new_decision_id
from pdp.clock import Clock
from pdp.concurrency.waiting import in_pool
from pdp.errors import LimitExceeded
from pdp.gauges import Gauges
from pdp.limits import BATCH_ITEMS_MAX
from pdp.model import Effect, ResourceRef
from pdp.settings import SidecarSettings
from pdp.sidecar.exchanges import BATCH, CHECK, REASONS, CachedAnswer, Exchange, actor_of
from pdp.sidecar.upstreams import NoAnswer, Upstreams
from pdp.wire.callers import Caller
from pdp.wire.methods import Method
from pdp.wire.services.decision import SERVICE

FAIL_OPEN_MESSAGE = (
    "allowed before; the sidecar is cut off, and its settings let this permission fail open"
)
_FINGERPRINT_DIGITS = 16


@dataclass(slots=True)
class Counts:
    """Counters for metrics."""

    hits: int = 0
    misses: int = 0
    stayed_open: int = 0


class Answering:
    """Answers requests on one event loop; a bounded pool of threads calls upstream."""

    def __init__(
        self,
        settings: SidecarSettings,
        cache: DecisionCache[CachedAnswer],
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
        """The threads that call upstream."""
        self.counts = Counts()

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "pdp_sidecar_hits": (
                "Requests that were answered from the cache.",
                lambda: self.counts.hits,
            ),
            "pdp_sidecar_misses": (
                "Requests that upstream answered.",
                lambda: self.counts.misses,
            ),
            "pdp_sidecar_stayed_open": (
                "Requests that were answered in the fail-open window.",
                lambda: self.counts.stayed_open,
            ),
            "pdp_sidecar_live": (
                "1 while there is a lease: the cache is used.",
                lambda: float(self._cache.live),
            ),
            "pdp_sidecar_entries": ("Cached answers.", lambda: self._cache.size),
        }

    def methods(self) -> Sequence[Method]:
        """The methods of PolicyDecisionService."""
        return self._method(CHECK), self._method(BATCH)

    def _method(self, exchange: Exchange) -> Method:
        async def answer(request: Any, caller: Caller) -> Message:
            items = len(exchange.items(request))
            # As upstream does, and before any item is processed.
            if items > BATCH_ITEMS_MAX:
                raise LimitExceeded("batch_items_max", BATCH_ITEMS_MAX, items)
            key = key_of(exchange.path, request)
            try:
                return await self._answer(exchange, key, request, caller)
            except NoAnswer as error:
                failure = error
            entry = None
            if failure.out_of_reach:
                entry = await self._fail_open(exchange, key, request, caller)
            else:
                # A server was reachable and did not allow it: an older allow must not fail open.
                self._cache.forget(key)
            if entry is None:
                raise failure.error
            return entry

        return Method(
            SERVICE, exchange.name, "decide", exchange.request, answer, exchange.request_bytes_max
        )

    async def _answer(
        self, exchange: Exchange, key: bytes, request: Any, caller: Caller
    ) -> Message:
        """Raises NoAnswer, AuditUnavailable."""

        def ask() -> Fresh[CachedAnswer]:
            answer = self._upstreams.ask(exchange.path, request, exchange.response)
            return exchange.fresh(request, answer)

        def get_or_ask() -> Given[CachedAnswer]:
            return self._cache.get_or_ask(key, ask, wait_seconds=self._settings.deadline_seconds)

        found = self._cache.find(key)
        if found is not None:
            given = Given(found, cached=True)
        else:
            given = await in_pool(self.asking, get_or_ask)
        entry, cached = given.answer, None
        if given.cached and not entry.denies:
            cached = entry.cached
        elif given.cached:
            cached = await self._record_cached(
                exchange, request, entry, caller, AnswerSource.CACHED
            )
            # The write took time. If the entry is no longer valid meanwhile, upstream is called.
            if self._cache.find(key) is not entry:
                fresh = await in_pool(self.asking, ask)
                entry, cached = fresh.answer, None
        if cached is None:
            self.counts.misses += 1
        else:
            self.counts.hits += 1
        message: Message = entry.fresh if cached is None else cached
        return message

    async def _fail_open(
        self, exchange: Exchange, key: bytes, request: Any, caller: Caller
    ) -> Message | None:
        """The cached answer, if the settings let it fail open. Raises AuditUnavailable."""
        items = exchange.items(request)
        seconds = min((self._settings.open_seconds(item.permission) for item in items), default=0.0)
        if not seconds:
            return None
        entry = self._cache.find(key, overtime_seconds=seconds)
        if entry is None or entry.denies:
            return None
        cached: Message = await self._record_cached(
            exchange, request, entry, caller, AnswerSource.STAYED_OPEN
        )
        if self._cache.find(key, overtime_seconds=seconds) is not entry:
            return None
        self.counts.stayed_open += 1
        return cached

    async def _record_cached(
        self,
        exchange: Exchange,
        request: Any,
        entry: CachedAnswer,
        caller: Caller,
        source: AnswerSource,
    ) -> Any:
        """Makes new decisions of a cached answer (all denials, or all that fail open), and logs
        them."""
        message: Any = exchange.response()
        message.CopyFrom(entry.cached)
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
                result.message = FAIL_OPEN_MESSAGE
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
