"""Keeps one `ChangeService.Watch` open and tells a cache what it says.

How a lease is counted is said in `proto/pdpapi/v1/change_service.proto`. Nothing that a peer sends
makes a lease longer than one second from when it was heard, and what is not understood drops
everything.
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
"""Four heartbeats. A connection whose other end is gone says nothing either."""
LATE_SECONDS_MAX = 0.7
"""A word that comes later has no lease that lasts to the next. As `began` stays, so does the delay:
a stream whose request was held up for long is of no use as long as it lasts."""
FIRST_WORD_SECONDS_MAX = 2.0
"""A server that is behind the revision that it is asked for says so only after a second."""
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
"""Somebody has to change something before it works."""

_Stream = Any  # grpc.CallIterator[WatchResponse], which is there for type checkers only


class Follower:
    """Watches for one cache from `start` to `stop`. Start it after a fork.

    `open_watch` begins a stream; each time it may be one to another server of the same service.
    `on_lost` is told how each stream ended that did not end with OK; CANCELLED: it was silent.
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
        """The stream, and when it is to be cut if nothing is heard before."""
        self._refused = False
        self._threads = [
            threading.Thread(target=run, name=f"pdp-{run.__name__.strip('_')}", daemon=True)
            for run in (self._follow, self._cut_silence)
        ]

    def start(self) -> None:
        """Begins to watch, without waiting for anything."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the stream and drops what is kept. Takes about a second at most."""
        self._stopping.set()
        if (current := self._current) is not None:
            current[0].cancel()
        for thread in self._threads:
            thread.join(1.0)
        self._cache.start_over("", 0)

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
                # Not all at the same time: those who were refused together come back together.
                pause = REFUSED_RETRY_SECONDS * random.uniform(0.5, 1)  # noqa: S311  # no secret
            else:
                lasted = time.monotonic() - began > SILENCE_SECONDS_MAX
                longest = RETRY_SECONDS_FIRST if lasted else min(2 * longest, RETRY_SECONDS_MAX)
                pause = random.uniform(0, longest)  # noqa: S311  # no secret
            self._stopping.wait(pause)

    def _watch(self, began: float) -> grpc.StatusCode:
        """One stream. `began`: monotonic seconds, read before it is asked for."""
        epoch, revision = self._cache.position
        try:
            stream = self._open_watch(WatchRequest(epoch=epoch, after_revision=revision))
            self._current = stream, began + FIRST_WORD_SECONDS_MAX
            if self._stopping.is_set():  # `stop` may have looked before there was a stream
                stream.cancel()
            for message in stream:
                heard_at = time.monotonic()
                if not _is_late(message, began, heard_at):
                    self._current = stream, heard_at + SILENCE_SECONDS_MAX
                self._tell(message, began, heard_at)
                self._refused = False
        except grpc.RpcError as error:
            failure = cast(grpc.Call, error)  # what a stub raises is the ended call
            code = failure.code()
            reason = failure_of(failure, Token("")).reason
            if reason == "REVISION_NOT_REACHED" or code is grpc.StatusCode.INVALID_ARGUMENT:
                self._cache.start_over("", 0)
            return code
        except Exception as error:  # noqa: BLE001  # without this thread nothing would be kept again
            # Its name only: a text may repeat what was sent.
            log.error("the change stream ended with %s", type(error).__name__)  # noqa: TRY400
            self._cache.start_over("", 0)
            if (current := self._current) is not None:
                current[0].cancel()
            return grpc.StatusCode.UNKNOWN
        finally:
            self._current = None
        return grpc.StatusCode.OK

    def _tell(self, message: WatchResponse, began: float, heard_at: float) -> None:
        match message.WhichOneof("told"):
            case "changed":
                self._cache.changed(message.changed.changes, message.changed.revision)
            case "heartbeat":
                beat = message.heartbeat
                self._cache.renew(beat.revision, beat.epoch, _lease_end(beat, began, heard_at))
            case "start_over":
                self._cache.start_over(message.start_over.epoch, message.start_over.revision)
            case _:
                self._cache.start_over("", 0)

    def _cut_silence(self) -> None:
        while not self._stopping.wait(SILENCE_SECONDS_MAX / 10):
            current = self._current
            if current is not None and time.monotonic() > current[1]:
                current[0].cancel()

    def _say_refused(self, code: grpc.StatusCode) -> None:
        if not self._refused:
            log.warning("the change stream is refused (%s): no answer is kept", code.name)
        self._refused = True


def _is_late(message: WatchResponse, began: float, heard_at: float) -> bool:
    if message.WhichOneof("told") != "heartbeat":
        return False
    return heard_at - began - _seconds(message.heartbeat.elapsed) > LATE_SECONDS_MAX


def _lease_end(beat: Heartbeat, began: float, heard_at: float) -> float:
    """Monotonic seconds. A server counts `elapsed` from later on than `began`, so more than what
    has passed is not true."""
    elapsed = min(_seconds(beat.elapsed), heard_at - began)
    return began + elapsed + min(_seconds(beat.lease), LEASE_SECONDS_MAX)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
