"""The guard itself: ask, bounded by a deadline, and say what came of it."""

import math
import random
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar, cast

import grpc
from pdpapi.v1.change_service_pb2_grpc import ChangeServiceStub
from pdpapi.v1.decision_service_pb2 import CheckRequest
from pdpapi.v1.decision_service_pb2_grpc import PolicyDecisionServiceStub

from pdp_client.cache import DecisionCache, Fresh, key_of
from pdp_client.errors import denied, failure_of
from pdp_client.following import Follower
from pdp_client.messages import (
    batch_request,
    check_request,
    decision_from_check,
    decisions_from_batch,
    fresh_from_check,
)
from pdp_client.transport import TlsOptions, caller_metadata, open_channel
from pdp_client.values import Actor, Attributes, Decision, Effect, Question, Resource, Token

BATCH_QUESTIONS_MAX = 1_000
_RETRY_SECONDS_FIRST = 0.025
_RETRY_SECONDS_MAX = 1.0
# A server that ends cancels what it has accepted and not begun; nothing here cancels a call.
_ASK_AGAIN = frozenset((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED))

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


class Guard:
    """Asks one PDP. Thread-safe; make one per process (after a fork) and keep it.

    `target` is a gRPC target: `host:port`, `dns:///host:port` (every address behind the name is
    used in turn), `ipv4:10.0.0.1:50051,10.0.0.2:50051`, `unix:/run/pdp.sock`. Without `tls` the
    connection is clear text, which beyond loopback is refused unless `insecure` is set.
    `deadline_seconds` bounds each call as a whole, repetitions included.

    With `cache` it keeps allows and gives them again to equal questions, without the network, while
    it follows the PDP's change stream; `pdp_client/cache.py` says by which rules.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: TlsOptions | None = None,
        api_key: str | None = None,
        deadline_seconds: float = 0.25,
        insecure: bool = False,
        cache: bool = False,
    ) -> None:
        """Raises ValueError for options that do not hold, OSError for unreadable PEM files.
        It waits for no connection: the first call does."""
        if not (math.isfinite(deadline_seconds) and deadline_seconds > 0):
            raise ValueError(f"deadline_seconds must be above 0, it is {deadline_seconds}")
        self._deadline_seconds = deadline_seconds
        self._metadata = caller_metadata(api_key)
        self._channel = open_channel(target, tls, api_key, insecure=insecure)
        self._stub = PolicyDecisionServiceStub(self._channel)
        self._closed = threading.Event()
        self._cache: DecisionCache[tuple[Decision, Decision]] | None = None
        if cache:
            self._cache = DecisionCache()
            watch = ChangeServiceStub(self._channel).Watch
            self._follower = Follower(
                lambda request: watch(request, metadata=self._metadata), self._cache
            )
            self._follower.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections; calls in flight raise PdpUnavailable, later ones ValueError."""
        if self._cache is not None:
            self._follower.stop()
        self._closed.set()
        self._channel.close()

    def check(
        self,
        token: str | Token,
        permission: str,
        resource: Resource | None = None,
        context: Attributes | None = None,
        *,
        at_least_revision: int = 0,
    ) -> Decision:
        """May the bearer of `token` use `permission` on `resource`? Both answers are returned:
        look at `decision.allowed`.

        Raises PdpUnavailable or PdpRefused where there is no answer, TypeError or ValueError for
        arguments that cannot be sent. `at_least_revision` (from a write) asks for an answer that
        has seen that write; 0: no wish.
        """
        ends = time.monotonic() + self._deadline_seconds
        secret = _wrapped(token)
        request = check_request(secret, Question(permission, resource, context), at_least_revision)
        if self._cache is None:
            return decision_from_check(self._ask(self._stub.Check, request, secret, ends))
        key = key_of("Check", request)
        kept = self._cache.find(key)
        if kept is not None:
            return kept[1]
        given = self._cache.get_or_ask(
            key, lambda: self._fresh(request, secret, ends), wait_seconds=self._deadline_seconds
        )
        return given.answer[given.cached]

    def require(
        self,
        token: str | Token,
        permission: str,
        resource: Resource | None = None,
        context: Attributes | None = None,
        *,
        at_least_revision: int = 0,
    ) -> Actor:
        """Returns the verified actor if they may.

        Raises Unauthenticated (401) or Forbidden (403) if they may not, and otherwise what `check`
        raises.
        """
        decision = self.check(
            token, permission, resource, context, at_least_revision=at_least_revision
        )
        if decision.effect is not Effect.ALLOW or decision.actor is None:
            raise denied(decision)
        return decision.actor

    def batch(
        self,
        token: str | Token,
        questions: Sequence[Question],
        *,
        at_least_revision: int = 0,
    ) -> list[Decision]:
        """Answers 1 to 1,000 questions of one actor, in order, all at one revision.

        Raises what `check` raises; ValueError for another number of questions (they are not split:
        two calls may see two revisions).
        """
        if not 1 <= len(questions) <= BATCH_QUESTIONS_MAX:
            raise ValueError(
                f"a batch has 1 to {BATCH_QUESTIONS_MAX} questions, not {len(questions)}"
            )
        secret = _wrapped(token)
        request = batch_request(secret, questions, at_least_revision)
        ends = time.monotonic() + self._deadline_seconds
        answer = self._ask(self._stub.BatchCheck, request, secret, ends)
        return decisions_from_batch(answer, len(questions))

    def _fresh(
        self, request: CheckRequest, token: Token, ends: float
    ) -> Fresh[tuple[Decision, Decision]]:
        sent_at = time.monotonic()
        answer = self._ask(self._stub.Check, request, token, ends)
        return fresh_from_check(request, answer, sent_at)

    def _ask(
        self,
        method: "grpc.UnaryUnaryMultiCallable[RequestT, AnswerT]",  # generic in its stubs only
        request: RequestT,
        token: Token,
        ends: float,
    ) -> AnswerT:
        """Calls until there is an answer, an error that will stay, or no time left (`ends`, in
        monotonic seconds). Repeating is safe because no decision changes anything."""
        longest = _RETRY_SECONDS_FIRST
        failure: grpc.Call | None = None
        while True:
            try:
                return method(
                    request, timeout=max(0.0, ends - time.monotonic()), metadata=self._metadata
                )
            except grpc.RpcError as error:
                last = cast(grpc.Call, error)  # what a stub raises is the ended call
            # Where a repetition ran out of time, why there was one says more.
            if failure is None or last.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                failure = last
            # Full jitter: guards that failed together do not come back together.
            pause = random.uniform(0, longest)  # noqa: S311  # not a secret
            if (
                last.code() not in _ASK_AGAIN
                or time.monotonic() + pause >= ends
                or self._closed.wait(pause)
            ):
                # Raised outside the handler: gRPC's own exception repeats the peer's text.
                raise failure_of(failure, token)
            longest = min(2 * longest, _RETRY_SECONDS_MAX)


def _wrapped(token: str | Token) -> Token:
    return token if isinstance(token, Token) else Token(token)
