"""Streams through the door by grpcio: one thread feeds them all, and none of them keeps another.

The synchronous server gives each stream a thread of its pool for as long as it lasts. Its health
service has a way around that (`experimental_non_blocking`): the handler is given a function to send
by, and returns. That function waits until a message is out, though, so that one who does not read
would hold up everybody; therefore messages are handed to the call itself, without waiting, by
`_send`, the one place that knows the inside of grpcio. `docs/adr/0011-...` says why.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import structlog
from grpc import _server as grpc_server
from grpc._cython import cygrpc  # type: ignore[attr-defined]
from grpc_status import rpc_status

from pdp.errors import LimitExceeded
from pdp.wire.arrivals import Arrivals
from pdp.wire.callers import Proof
from pdp.wire.gate import Gate, Refusal, Stream, refusal_of
from pdp.wire.methods import StreamMethod

log = structlog.get_logger("pdp.wire")

UNREAD_SECONDS_MAX = 1.0
"""As long as a lease at most: who has not taken a message for so long has none."""
CUT_SECONDS = 5.0
"""After that nobody waits any more for a peer to read how its stream ended."""
REST_SECONDS_MIN = 0.005
REST_SHARE = 3
"""The feeder rests so many times as long as it worked: it takes a quarter of the time at most."""
OPENING_THREADS = 4
OPENING_SECONDS_MAX = 1.0
"""What comes later than that has no lease."""


Send = Callable[[object], None]
"""grpcio's own way to send; here only to say None: it is over."""


class Streams:
    """All open streams of a door."""

    def __init__(
        self,
        gate: Gate,
        arrivals: Arrivals,
        proof_of: Callable[[grpc.ServicerContext], Proof],
    ) -> None:
        self._gate = gate
        self._arrivals = arrivals
        self._proof_of = proof_of
        self._opening = ThreadPoolExecutor(OPENING_THREADS, thread_name_prefix="stream")
        self._open: dict[_Outlet, None] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._feed, name="streams", daemon=True)

    def handler(self, method: StreamMethod) -> "grpc.RpcMethodHandler[Any, Any]":
        """How grpcio answers this method."""
        method.listen(self.wake)

        def serve(requests: Iterator[bytes], context: grpc.ServicerContext, send: Send) -> None:
            raw = self._arrivals.message(requests, context, OPENING_SECONDS_MAX)
            opened = self._gate.open(method, raw, self._proof_of(context))
            if isinstance(opened, Refusal):
                context.abort_with_status(rpc_status.to_status(opened.status))
            self._add(_Outlet(opened, context, send, self.wake))

        # Threads of its own, so that a call whose message does not come holds none of the others.
        serve.experimental_non_blocking = True  # type: ignore[attr-defined]
        serve.experimental_thread_pool = self._opening  # type: ignore[attr-defined]
        return grpc.stream_stream_rpc_method_handler(serve)

    def start(self) -> None:
        """Begins to feed."""
        self._thread.start()

    def wake(self) -> None:
        """There may be something to say, if only that the process ends."""
        self._wake.set()

    def stop(self) -> None:
        """Cuts off who has not read, a moment after the gate was closed, that this is the end."""
        deadline = time.monotonic() + UNREAD_SECONDS_MAX
        while self._all() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stopping = True
        self.wake()
        self._thread.join()
        for outlet in self._all():
            outlet.cut()

    def _add(self, outlet: "_Outlet") -> None:
        with self._lock:
            self._open[outlet] = None
        outlet.on_end(lambda: self._remove(outlet))
        self.wake()

    def _remove(self, outlet: "_Outlet") -> None:
        with self._lock:
            self._open.pop(outlet, None)

    def _all(self) -> list["_Outlet"]:
        with self._lock:
            return list(self._open)

    def _feed(self) -> None:
        due_at = 0.0
        while not self._stopping:
            self._wake.wait(max(0.0, due_at - time.monotonic()))
            self._wake.clear()
            began = due_at = time.monotonic()
            due_at += UNREAD_SECONDS_MAX
            for outlet in self._all():
                try:
                    due_at = min(due_at, outlet.go_on())
                except Exception:
                    # A bug with one stream must not end the others.
                    log.exception("stream_not_fed")
                    outlet.cut()
            time.sleep(max(REST_SECONDS_MIN, (time.monotonic() - began) * REST_SHARE))


class _Outlet:
    """One stream, and the call that it goes out by. One message is on its way at a time."""

    def __init__(self, stream: Stream, context: Any, send: Send, wake: Callable[[], None]) -> None:
        self._stream = stream
        self._context = context
        self._finish = send
        self._wake = wake
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._sending_since: float | None = None
        self._ended_at: float | None = None

    def on_end(self, ended: Callable[[], None]) -> None:
        """Has `ended` called when the call is over, whoever ended it."""

        def over() -> None:
            ended()
            self._stream.close("CANCELLED")

        if not self._context.add_callback(over):
            over()

    def go_on(self) -> float:
        """Sends what there is to send. Returns when that is worth trying again."""
        now = time.monotonic()
        with self._lock:
            ended_at, sending_since = self._ended_at, self._sending_since
        if ended_at is not None:
            if now >= ended_at + CUT_SECONDS:
                self.cut()
            return now + CUT_SECONDS
        if sending_since is None:
            self._take(now)
            return self._stream.feed.due_at
        refusal = self._stream.refusal()
        if refusal is not None:
            self._end(refusal)
        elif now >= sending_since + UNREAD_SECONDS_MAX:
            self._end(unread(now - sending_since))
        return sending_since + UNREAD_SECONDS_MAX

    def cut(self) -> None:
        """Ends the call without a word."""
        self._context.cancel()

    def _take(self, now: float) -> None:
        taken = self._stream.take()
        if taken is None or isinstance(taken, Refusal):
            self._end(taken)
        elif taken:
            with self._lock:
                self._waiting.extend(taken)
                self._sending_since = now
            self._send_next()

    def _send_next(self) -> None:
        with self._lock:
            message = None
            if self._ended_at is None and self._waiting:
                message = self._waiting.popleft()
                self._sending_since = time.monotonic()
            else:
                self._sending_since = None
        if message is not None:
            _send(self._context, message, self._send_next)
        elif self._stream.feed.behind:
            self._wake()

    def _end(self, refusal: Refusal | None) -> None:
        """Says how it ended, behind the message that is on its way."""
        with self._lock:
            self._ended_at = time.monotonic()
            self._waiting.clear()
        if refusal is not None:
            status = rpc_status.to_status(refusal.status)
            self._context.set_code(status.code)
            self._context.set_details(status.details)
            self._context.set_trailing_metadata(status.trailing_metadata)
        self._stream.close("OK" if refusal is None else refusal.code.name)
        self._finish(None)


def unread(seconds: float) -> Refusal:
    """What is said to who has not taken a message for so long."""
    maximum = int(UNREAD_SECONDS_MAX * 1_000)
    return refusal_of(LimitExceeded("unread_milliseconds_max", maximum, int(seconds * 1_000)))


def _send(context: Any, message: bytes, sent: Callable[[], None]) -> None:
    """Hands a message to a call, and returns. `sent` is called, by grpcio's own thread, once the
    peer's flow control has let it pass, or the call is over."""
    state = context._state  # noqa: SLF001
    token = grpc_server._SEND_MESSAGE_TOKEN  # noqa: SLF001
    with state.condition:
        if not context.is_active():
            return
        if state.initial_metadata_allowed:
            context.send_initial_metadata(())
        finish = grpc_server._send_message(state, token)  # noqa: SLF001

        def done(event: object) -> object:
            outcome = finish(event)
            try:
                sent()
            except Exception:
                # It would end the thread that serves everybody.
                log.exception("stream_not_fed")
            return outcome

        operation = cygrpc.SendMessageOperation(message, 0)
        context._rpc_event.call.start_server_batch((operation,), done)  # noqa: SLF001
        state.due.add(token)
