"""Has no call keep a thread for a message that does not come.

grpcio's synchronous server gives a call a thread when its headers have come. Where the message
never does, that thread is lost to all others, and whoever may connect could take every one so. The
server is told to expect a stream of messages, of which the one is taken here: only so is there
something to cut off. Reflection is a stream that lasts as long as its client wants; not here.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc

MESSAGE_SECONDS_MAX = 5.0
"""A document of 4 MiB may have a slow line."""
REFLECTION_SECONDS_MAX = 5.0
LOOK_SECONDS = 0.25

_Handler: TypeAlias = Any  # grpc.RpcMethodHandler, whose stubs want type variables here


class Arrivals(grpc.ServerInterceptor):
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._late_at: dict[grpc.ServicerContext, float] = {}
        """time.monotonic() of when a call is cut off."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._cut_late, name="arrivals", daemon=True)

    def start(self) -> None:
        """Begins to look at the clock."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; from now on nobody is cut off."""
        self._stopping.set()
        self._thread.join()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Wraps what would keep a thread waiting."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        codecs = handler.request_deserializer, handler.response_serializer
        unary, stream = handler.unary_unary, handler.stream_stream
        if unary is not None:

            def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
                return unary(self.message(requests, context, MESSAGE_SECONDS_MAX), context)

            return grpc.stream_unary_rpc_method_handler(answer, *codecs)
        if stream is not None and not hasattr(stream, "experimental_non_blocking"):

            def converse(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
                with self._no_longer(context, REFLECTION_SECONDS_MAX):
                    yield from stream(requests, context)

            return grpc.stream_stream_rpc_method_handler(converse, *codecs)
        return handler

    def message(
        self, requests: Iterator[Any], context: grpc.ServicerContext, seconds_max: float
    ) -> Any:
        """The message of a call. Ends the call, by an exception, where there is none in time."""
        with self._no_longer(context, seconds_max):
            message = next(requests, None)
        if message is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no request message")
        return message

    @contextmanager
    def _no_longer(self, context: grpc.ServicerContext, seconds_max: float) -> Iterator[None]:
        with self._lock:
            self._late_at[context] = time.monotonic() + seconds_max
        try:
            yield
        finally:
            with self._lock:
                del self._late_at[context]

    def _cut_late(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            now = time.monotonic()
            with self._lock:
                late = [context for context, at in self._late_at.items() if now >= at]
            for context in late:
                context.cancel()
