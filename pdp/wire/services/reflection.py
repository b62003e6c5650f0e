"""Server reflection, for tools such as grpcurl. Answers every caller.

Version 1 differs from version 1alpha by its name only, so one servicer answers both.
Source: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection, reflection_pb2

from pdp.wire.methods import DialogMethod

REQUEST_BYTES_MAX = 4 * 1024
SERVICES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)


def reflection_methods(services: Iterable[str]) -> Sequence[DialogMethod]:
    """The methods of both versions, which describe `services` and themselves."""
    servicer = reflection.ReflectionServicer((*sorted(set(services)), *SERVICES))

    def answer(request: Any) -> Message:
        [response] = servicer.ServerReflectionInfo(iter((request,)), None)
        message: Message = response
        return message

    return [
        DialogMethod(
            service,
            "ServerReflectionInfo",
            "caller",
            reflection_pb2.ServerReflectionRequest,
            answer,
            REQUEST_BYTES_MAX,
        )
        for service in SERVICES
    ]
