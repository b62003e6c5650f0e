"""Keeps a `ChangeService.Watch` stream open and applies its messages to a cache.

`proto/pdpapi/v1/change_service.proto` documents how a lease is counted. No message of a peer makes
a lease longer than one second from its arrival. An unknown message drops everything.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import grpc
from google.protobuf.duration_pb2 import Duration
from pdpapi.v1.change_service_pb2 import Heartbeat, WatchRequest, WatchResponse

from pdp_client.cache import DecisionCache
from pdp_client.errors import failure_of
from pdp_client.values import Token

log = logging.getLogger("pdp_client")

LEASE_SECONDS_MAX = 1.0
SILENCE_SECONDS_MAX = 1.0
"""Four heartbeats. A connection whose other end has gone sends nothing either."""
LATE_SECONDS_MAX = 0.7
"""A later heartbeat has no lease that lasts until the next one. `began` does not change, and
neither does the delay: a stream whose request was delayed for long stays useless."""
FIRST_MESSAGE_SECONDS_MAX = 2.0
"""A server that has not reached the requested revision reports that only after a second."""
RETRY_SECONDS_FIRST = 0.05
RETRY_SECONDS_MAX = 1.0
REFUSED_RETRY_SECONDS = 30.0

_REFUSALS = frozenset(
    (
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    )
)
"""Statuses that last until somebody changes the configuration."""

_Stream = Any  # grpc.CallIterator[WatchResponse], which exists for type checkers only


class Follower:
    """Follows the change stream for a cache from `start` to `stop`. Start it after a fork.

    `open_watch` opens a stream, each time perhaps to another server of the same service. `on_lost`
    receives the status of each stream that did not end with OK; CANCELLED: it was silent.
    """

    def __init__(
        self,
        open_watch: Callable[[WatchRequest], _Stream],
        cache: DecisionCache[Any],
        *,
        on_lost: Callable[[grpc.StatusCode], None] = lambda _: None,
    ) -> None:
        self._open_watch = open_watch
        self._cache = cache
        self._on_lost = on_lost
        self._stopping = threading.Event()
        self._current: tuple[_Stream, float] | None = None
        """The stream, and when to cancel it unless a message arrives before."""
        self._refused = False
        self._threads = [
            threading.Thread(target=run, name=f"pdp-{run.__name__.strip('_')}", daemon=True)
            for run in (self._follow, self._cut_silence)
        ]

    def start(self) -> None:
        """Starts to follow. Does not wait for the stream."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the stream and empties the cache. Takes at most about a second."""
        self._stopping.set()
        if (current := self._current) is not None:
            current[0].cancel()
        for thread in self._threads:
            thread.join(1.0)
        self._cache.resync("", 0)

    def _follow(self) -> None:
        longest = RETRY_SECONDS_FIRST
        while not self._stopping.is_set():
            began = time.monotonic()
            code = self._watch(began)
            if self._stopping.is_set():
                return
            if code is not grpc.StatusCode.OK:
                self._on_lost(code)
            if code in _REFUSALS:
                self._say_refused(code)
                # Random, so that guards that were refused together do not retry together.
                pause = REFUSED_RETRY_SECONDS * random.uniform(0.5, 1)  # noqa: S311  # no secret
            else:
                lasted = time.monotonic() - began > SILENCE_SECONDS_MAX
                longest = RETRY_SECONDS_FIRST if lasted else min(2 * longest, RETRY_SECONDS_MAX)
                pause = random.uniform(0, longest)  # noqa: S311  # no secret
            self._stopping.wait(pause)

    def _watch(self, began: float) -> grpc.StatusCode:
        """Follows a stream until it ends. `began`: monotonic seconds, read before the stream is
        opened."""
        epoch, revision = self._cache.position
        try:
            stream = self._open_watch(WatchRequest(epoch=epoch, after_revision=revision))
            self._current = stream, began + FIRST_MESSAGE_SECONDS_MAX
            if self._stopping.is_set():  # `stop` may have run before there was a stream
                stream.cancel()
            for message in stream:
                arrived_at = time.monotonic()
                if not _is_late(message, began, arrived_at):
                    self._current = stream, arrived_at + SILENCE_SECONDS_MAX
                self._apply(message, began, arrived_at)
                self._refused = False
        except grpc.RpcError as error:
            failure = cast(grpc.Call, error)  # a stub raises the ended call
            code = failure.code()
            reason = failure_of(failure, Token("")).reason
            if reason == "REVISION_NOT_REACHED" or code is grpc.StatusCode.INVALID_ARGUMENT:
                self._cache.resync("", 0)
            return code
        except Exception as error:  # noqa: BLE001  # without this thread nothing would be cached again
            # Only the type's name: the text may repeat what was sent.
            log.error("the change stream ended with %s", type(error).__name__)  # noqa: TRY400
            self._cache.resync("", 0)
            if (current := self._current) is not None:
                current[0].cancel()
            return grpc.StatusCode.UNKNOWN
        finally:
            self._current = None
        return grpc.StatusCode.OK

    def _apply(self, message: WatchResponse, began: float, arrived_at: float) -> None:
        match message.WhichOneof("told"):
            case "changed":
                self._cache.changed(message.changed.changes, message.changed.revision)
            case "heartbeat":
                beat = message.heartbeat
                self._cache.renew(beat.revision, beat.epoch, _lease_end(beat, began, arrived_at))
            case "start_over":
                self._cache.resync(message.start_over.epoch, message.start_over.revision)
            case _:
                self._cache.resync("", 0)

    def _cut_silence(self) -> None:
        while not self._stopping.wait(SILENCE_SECONDS_MAX / 10):
            current = self._current
            if current is not None and time.monotonic() > current[1]:
                current[0].cancel()

    def _say_refused(self, code: grpc.StatusCode) -> None:
        if not self._refused:
            log.warning("the change stream is refused (%s): no answer is cached", code.name)
        self._refused = True


def _is_late(message: WatchResponse, began: float, arrived_at: float) -> bool:
    if message.WhichOneof("told") != "heartbeat":
        return False
    return arrived_at - began - _seconds(message.heartbeat.elapsed) > LATE_SECONDS_MAX


def _lease_end(beat: Heartbeat, began: float, arrived_at: float) -> float:
    """The end of the lease in monotonic seconds. A server counts `elapsed` from a later moment than
    `began`, so a value beyond the time that has passed is wrong."""
    elapsed = min(_seconds(beat.elapsed), arrived_at - began)
    return began + elapsed + min(_seconds(beat.lease), LEASE_SECONDS_MAX)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
