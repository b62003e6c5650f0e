"""Forwards queries to upstream. Answers are not cached: no event says which change affects one."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.protobuf.message import Message
from pdpapi.v1 import access_query_service_pb2 as pb
from pdpapi.v1 import review_service_pb2

from pdp.concurrency.waiting import in_pool
from pdp.limits import MESSAGE_BYTES_MAX
from pdp.settings import Capability
from pdp.sidecar.upstreams import NoAnswer, Upstreams
from pdp.wire.callers import Caller
from pdp.wire.methods import Method
from pdp.wire.services import reviews
from pdp.wire.services.access_queries import SERVICE
from pdp.wire.services.decision import CHECK_BYTES_MAX


def forwarded_methods(
    upstreams: Upstreams, pool: ThreadPoolExecutor, *, callers_authenticate: bool
) -> Sequence[Method]:
    """The methods of AccessQueryService that take an actor's token, and the lists of ReviewService.

    ListAllowedActors is not one of them: it needs the capability `audit`, and a sidecar must not
    lend its own to its callers. Reviews need it too. They are forwarded for callers that prove who
    they are and have the capability at the sidecar, if the server gives it to the sidecar.
    Campaigns are not: their reviewer would be the sidecar.
    """

    def method(
        name: str,
        request_type: type[Message],
        response_type: type[Message],
        bytes_max: int,
        *,
        service: str = SERVICE,
        access: Capability = "decide",
    ) -> Method:
        async def answer(request: Any, _: Caller) -> Message:
            path = f"/{service}/{name}"
            try:
                found = await in_pool(pool, lambda: upstreams.ask(path, request, response_type))
            except NoAnswer as error:
                raise error.error from None
            message: Message = found.message
            return message

        return Method(service, name, access, request_type, answer, bytes_max)

    lists = ("ListUserAccess", "ListGrantFindings", "ListDecisionFindings")
    return (
        *(
            method(
                name,
                getattr(review_service_pb2, f"{name}Request"),
                getattr(review_service_pb2, f"{name}Response"),
                CHECK_BYTES_MAX,
                service=reviews.SERVICE,
                access="audit",
            )
            for name in (lists if callers_authenticate else ())
        ),
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
