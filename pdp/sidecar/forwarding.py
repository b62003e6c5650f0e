"""Forwards queries to upstream. Answers are not cached: no event says which change affects one."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.protobuf.message import Message
from pdpapi.v1 import access_query_service_pb2 as pb

from pdp.concurrency.waiting import in_pool
from pdp.limits import MESSAGE_BYTES_MAX
from pdp.sidecar.upstreams import NoAnswer, Upstreams
from pdp.wire.callers import Caller
from pdp.wire.methods import Method
from pdp.wire.services.access_queries import SERVICE
from pdp.wire.services.decision import CHECK_BYTES_MAX


def forwarded_methods(upstreams: Upstreams, pool: ThreadPoolExecutor) -> Sequence[Method]:
    """The methods of AccessQueryService that take an actor's token.

    ListAllowedActors is not one of them: it needs the capability `audit`, and a sidecar must not
    lend its own to its callers.
    """

    def method(
        name: str, request_type: type[Message], response_type: type[Message], bytes_max: int
    ) -> Method:
        async def answer(request: Any, _: Caller) -> Message:
            path = f"/{SERVICE}/{name}"
            try:
                found = await in_pool(pool, lambda: upstreams.ask(path, request, response_type))
            except NoAnswer as error:
                raise error.error from None
            message: Message = found.message
            return message

        return Method(SERVICE, name, "decide", request_type, answer, bytes_max)

    return (
        method(
            "ListAllowedPermissions",
            pb.ListAllowedPermissionsRequest,
            pb.ListAllowedPermissionsResponse,
            MESSAGE_BYTES_MAX,
        ),
        method(
            "ListAllowedResources",
            pb.ListAllowedResourcesRequest,
            pb.ListAllowedResourcesResponse,
            CHECK_BYTES_MAX,
        ),
        method(
            "PlanResources",
            pb.PlanResourcesRequest,
            pb.PlanResourcesResponse,
            CHECK_BYTES_MAX,
        ),
    )
