"""ChangeService: changes that a replica applied -> WatchResponse.

`proto/pdpapi/v1/change_service.proto` defines leases.
"""

import functools
import random
import threading
import time
from collections.abc import Mapping, Sequence

from pdpapi.v1 import change_service_pb2
from pdpapi.v1.change_service_pb2 import (
    Changed,
    ChangedKey,
    Heartbeat,
    StartOver,
    WatchRequest,
    WatchResponse,
)
from pdpapi.v1.change_service_pb2 import ChangeKind as WireKind

from pdp.errors import InvalidRequest, Overloaded, Violation
from pdp.facts import ChangeBatch, ChangeKind, ChangeSubscription, Replica, RevisionPart
from pdp.facts.replica.leases import CLOCK_DRIFT, LEASE_SECONDS_MAX
from pdp.gauges import Gauges
from pdp.wire.callers import Caller
from pdp.wire.convert.times import set_duration
from pdp.wire.methods import StreamMethod

SERVICE = change_service_pb2.DESCRIPTOR.services_by_name["ChangeService"].full_name
REQUEST_BYTES_MAX = 1024
EPOCH_CHARACTERS_MAX = 256
WATCHERS_MAX = 1_024
HEARTBEAT_SECONDS = 0.25
LIFE_SECONDS_MAX = 300.0
RETRY_SECONDS = 0.02

KINDS: Mapping[ChangeKind, WireKind.ValueType] = {
    kind: WireKind.Value(f"CHANGE_KIND_{kind.name}")
    for kind in ChangeKind
    if kind is not ChangeKind.EVERYTHING
}


class Watchers:
    """The open streams of this process, counted."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._lock = threading.Lock()
        self.count = 0

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "pdp_watchers": ("Streams of changes that are open.", lambda: self.count),
        }

    def methods(self) -> Sequence[StreamMethod]:
        """The methods of ChangeService."""
        watch = StreamMethod(
            SERVICE,
            "Watch",
            "decide",
            WatchRequest,
            self._open,
            self._replica.on_change,
            REQUEST_BYTES_MAX,
        )
        return (watch,)

    def leave(self) -> None:
        """Counts a stream that has closed."""
        with self._lock:
            self.count -= 1

    def _open(self, request: WatchRequest, _: Caller) -> "Watcher":
        _check(request)
        with self._lock:
            if self.count >= WATCHERS_MAX:
                raise Overloaded("watchers_max", WATCHERS_MAX)
            self.count += 1
        return Watcher(self._replica.subscribe(request.epoch, request.after_revision), self)


class Watcher:
    """A `Subscription`: changes, heartbeats, and an end after at most LIFE_SECONDS_MAX."""

    def __init__(self, subscription: ChangeSubscription, watchers: Watchers) -> None:
        self._subscription = subscription
        self._watchers = watchers
        self._began = self.due_at = time.monotonic()
        # Spread: streams that opened together must not reopen together.
        self._ends_at = self._began + LIFE_SECONDS_MAX * random.uniform(0.8, 1)  # noqa: S311

    def take(self) -> Sequence[bytes] | None:
        """See `Subscription`."""
        # Read before the changes: what is true at this time is true when the client reads it.
        now = time.monotonic()
        if now >= self._ends_at:
            return None
        batch = self._subscription.next_batch()
        messages = []
        if batch.resync:
            start = StartOver(epoch=batch.epoch, revision=batch.revision)
            messages.append(WatchResponse(start_over=start).SerializeToString())
        if batch.parts:
            messages.append(_changed(*batch.parts))
        # After a resync the client has no lease, so it gets one at once.
        if batch.resync or now >= self.due_at:
            self.due_at = now + (HEARTBEAT_SECONDS if batch.fresh_seconds else RETRY_SECONDS)
            if batch.fresh_seconds:
                messages.append(self._heartbeat(batch, batch.fresh_seconds, now))
        return messages

    def close(self) -> None:
        """See `Subscription`."""
        self._subscription.close()
        self._watchers.leave()

    def _heartbeat(self, batch: ChangeBatch, fresh_seconds: float, now: float) -> bytes:
        elapsed = now - self._began
        lease = min(LEASE_SECONDS_MAX, fresh_seconds) - elapsed * CLOCK_DRIFT
        heartbeat = Heartbeat(revision=batch.revision, epoch=batch.epoch)
        set_duration(heartbeat.lease, max(0.0, lease))
        set_duration(heartbeat.elapsed, elapsed)
        return WatchResponse(heartbeat=heartbeat).SerializeToString()


def _check(request: WatchRequest) -> None:
    if len(request.epoch) > EPOCH_CHARACTERS_MAX:
        raise InvalidRequest(Violation("epoch", f"has more than {EPOCH_CHARACTERS_MAX} characters"))
    if request.after_revision and not request.epoch:
        raise InvalidRequest(Violation("epoch", "is missing: a revision is of one epoch"))


# Most streams send the same changes at the same time.
@functools.lru_cache(maxsize=16)
def _changed(*parts: RevisionPart) -> bytes:
    keys = [
        ChangedKey(kind=KINDS[change.kind], key=change.key)
        for part in parts
        for change in part.changes
    ]
    changed = Changed(revision=parts[-1].reached, changes=keys)
    return WatchResponse(changed=changed).SerializeToString()
