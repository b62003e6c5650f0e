"""gRPC servers that describe themselves: their messages, by name, and whether they serve."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from bench.pdp import Ask

_SERVING = b"\x08\x01"
"""grpc.health.v1.HealthCheckResponse with SERVING."""


@contextmanager
def asking(port: int, method: str) -> Iterator[tuple[Ask, Callable[[str], type[Message]]]]:
    """How to call a method with bytes, and the class of each message by its full name."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        yield (
            channel.unary_unary(method),
            lambda name: GetMessageClass(pool.FindMessageTypeByName(name)),
        )


def is_serving(port: int) -> bool:
    """Whether the server's health is SERVING."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask: Ask = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            return bool(ask(b"", timeout=1) == _SERVING)
        except grpc.RpcError:
            return False
