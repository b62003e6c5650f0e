"""The base of both guards: the connection to a PDP, and when to retry."""

import math
import random
import threading
import time
from dataclasses import dataclass
from typing import Self

import grpc
from pdpapi.v1.access_query_service_pb2_grpc import AccessQueryServiceStub
from pdpapi.v1.change_service_pb2_grpc import ChangeServiceStub
from pdpapi.v1.decision_service_pb2_grpc import PolicyDecisionServiceStub

from pdp_client.cache import DecisionCache
from pdp_client.errors import PdpRefused, PdpUnavailable, failure_of
from pdp_client.following import Follower
from pdp_client.transport import TlsOptions, caller_metadata, open_channel
from pdp_client.values import Decision, Token

_RETRY_SECONDS_FIRST = 0.025
_RETRY_SECONDS_MAX = 1.0
# A server that shuts down cancels calls that it has accepted and not begun. The guard cancels no
# call itself.
_ASK_AGAIN = frozenset((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED))


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """The state of a guard's cache at a moment, for example for metrics."""

    live: bool
    """Whether it may answer now. If it stays False, the change stream is lost or refused."""
    entries: int
    """The number of cached decisions."""
    in_flight: int
    """The number of questions that wait for an answer of the PDP."""
    revision: int
    """The cache has processed all changes up to this revision."""
    lease_ends_at: float
    """The end of the last lease, as a `time.monotonic()`; minus infinity: there was none."""


class Asking:
    """Asks a PDP. Thread-safe; create it once per process (after a fork) and keep it.

    `target` is a gRPC target: `host:port`, `dns:///host:port` (all addresses of the name take
    turns), `ipv4:10.0.0.1:50051,10.0.0.2:50051`, `unix:/run/pdp.sock`. Without `tls` the connection
    is in clear text, which is refused beyond loopback unless `insecure` is set. `deadline_seconds`
    bounds each call as a whole, retries included.

    With `cache` it caches allows and answers equal questions from the cache, without the network,
    while it follows the PDP's change stream; `pdp_client/cache.py` documents the rules.
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
        """Raises ValueError for invalid options, OSError for unreadable PEM files. Does not wait
        for a connection: the first call does."""
        if not (math.isfinite(deadline_seconds) and deadline_seconds > 0):
            raise ValueError(f"deadline_seconds must be above 0, it is {deadline_seconds}")
        self._deadline_seconds = deadline_seconds
        self._metadata = caller_metadata(api_key)
        self._channel = open_channel(target, tls, api_key, insecure=insecure)
        self._stub = PolicyDecisionServiceStub(self._channel)
        self._queries = AccessQueryServiceStub(self._channel)
        self._closed = threading.Event()
        self._cache: DecisionCache[tuple[Decision, Decision]] | None = None
        if cache:
            self._cache = DecisionCache()
            watch = ChangeServiceStub(self._channel).Watch
            self._follower = Follower(
                lambda request: watch(request, metadata=self._metadata), self._cache
            )
            self._follower.start()

    @classmethod
    def of(cls, other: "Asking") -> Self:
        """A guard of this class that shares everything with the other: connections, cache and
        closing."""
        if isinstance(other, cls):
            return other
        guard = cls.__new__(cls)
        vars(guard).update(vars(other))
        return guard

    @property
    def cache_status(self) -> CacheStatus | None:
        """The state of the cache; None without `cache=True`."""
        cache = self._cache
        if cache is None:
            return None
        return CacheStatus(
            live=cache.live,
            entries=cache.size,
            in_flight=cache.in_flight,
            revision=cache.position[1],
            lease_ends_at=cache.lease_ends_at,
        )

    def _end(self) -> None:
        if self._cache is not None:
            self._follower.stop()
        self._closed.set()
        self._channel.close()


class Attempts:
    """The attempts of a call: how long they may take, and whether to retry. A retry is safe because
    no decision changes anything."""

    def __init__(self, token: Token, seconds: float) -> None:
        self._token = token
        self._ends = time.monotonic() + seconds
        self._longest = _RETRY_SECONDS_FIRST
        self._failure: grpc.Call | None = None

    @property
    def seconds_left(self) -> float:
        """Seconds until the question's deadline, at least 0."""
        return max(0.0, self._ends - time.monotonic())

    def failed(self, call: grpc.Call) -> float | None:
        """How long to wait before a retry, in seconds; None: raise `error`."""
        # If a retry ran out of time, the failure before it says more.
        if self._failure is None or call.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            self._failure = call
        # Full jitter, so that guards that failed together do not retry together.
        pause = random.uniform(0, self._longest)  # noqa: S311  # not a secret
        self._longest = min(2 * self._longest, _RETRY_SECONDS_MAX)
        return pause if call.code() in _ASK_AGAIN and pause < self.seconds_left else None

    def error(self) -> PdpUnavailable | PdpRefused:
        """The error of the last attempt. Raise it outside of the handler of gRPC's own exception,
        which repeats the peer's text."""
        if self._failure is None:
            raise AssertionError("nothing failed")
        return failure_of(self._failure, self._token)
