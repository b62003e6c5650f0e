"""Forwards queries to upstream. Answers are not cached: no event says which change affects one."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.protobuf.message import Message

from pdp.concurrency.waiting import in_pool
from pdp.limits import MESSAGE_BYTES_MAX
from pdp.settings import Capability
from pdp.sidecar.upstreams import NoAnswer, Upstreams
from pdp.wire.callers import Caller
from pdp.wire.methods import Method, message_types, rpc
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
        name: str, bytes_max: int, *, service: str = SERVICE, access: Capability = "decide"
    ) -> Method:
        path, (_, response) = f"/{service}/{name}", message_types(service, name)

        async def answer(request: Any, _: Caller) -> Message:
            try:
                found = await in_pool(pool, lambda: upstreams.ask(path, request, response))
            except NoAnswer as error:
                raise error.error from None
            message: Message = found.message
            return message

        return rpc(service, name, access, answer, bytes_max)

    lists = ("ListUserAccess", "ListGrantFindings", "ListDecisionFindings")
    return (
        *(
            method(name, CHECK_BYTES_MAX, service=reviews.SERVICE, access="audit")
            for name in (lists if callers_authenticate else ())
        ),
        method("ListAllowedPermissions", MESSAGE_BYTES_MAX),
        method("ListAllowedResources", CHECK_BYTES_MAX),
        method("PlanResources", CHECK_BYTES_MAX),
    )
