"""AccessQueryService: what an actor may do, what they may use, and who may."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pdpapi.v1 import access_query_service_pb2 as pb

from pdp import model
from pdp.access_queries import AccessQueries, Answered
from pdp.errors import InvalidRequest, LimitExceeded, Violation
from pdp.limits import BATCH_ITEMS_MAX, MESSAGE_BYTES_MAX
from pdp.pacing import Pace
from pdp.wire.attributes import attributes_of
from pdp.wire.callers import Caller
from pdp.wire.decision import KINDS, REASONS, checked_resource, write_actor
from pdp.wire.methods import Method

SERVICE = pb.DESCRIPTOR.services_by_name["AccessQueryService"].full_name


def access_query_methods(queries: AccessQueries) -> Sequence[Method]:
    """The methods of AccessQueryService."""

    async def permissions(
        request: pb.ListAllowedPermissionsRequest, caller: Caller
    ) -> pb.ListAllowedPermissionsResponse:
        answered, results = await queries.permissions(
            request.actor_token,
            await _resources(request),
            attributes_of(request.context, "context"),
            caller.name,
            request.at_least_revision,
        )
        response = pb.ListAllowedPermissionsResponse(
            results=[
                pb.ResourcePermissions(allowed=one.allowed, denied=one.denied) for one in results
            ]
        )
        _write_answered(response, answered)
        return response

    return (
        Method(
            SERVICE,
            "ListAllowedPermissions",
            "decide",
            pb.ListAllowedPermissionsRequest,
            permissions,
            MESSAGE_BYTES_MAX,
        ),
    )


async def _resources(request: pb.ListAllowedPermissionsRequest) -> list[model.Resource]:
    if not request.resources:
        raise InvalidRequest(Violation("resources", "must hold at least one resource"))
    if len(request.resources) > BATCH_ITEMS_MAX:
        raise LimitExceeded("batch_items_max", BATCH_ITEMS_MAX, len(request.resources))
    resources: list[model.Resource] = []
    pace = Pace()
    try:
        for message in request.resources:
            resources.append(checked_resource(message))
            await pace.give_way()
    except InvalidRequest as error:
        place = f"resources[{len(resources)}]"
        raise InvalidRequest(
            *(replace(v, field=v.field.replace("resource", place, 1)) for v in error.violations)
        ) from None
    return resources


def _write_answered(response: Any, answered: Answered) -> None:
    """Writes what the answers to an actor's queries have in common."""
    response.query_id = answered.query_id
    response.revision = answered.revision
    response.epoch = answered.epoch
    if isinstance(answered.token, model.VerifiedToken):
        write_actor(response.actor, answered.token.actor)
    refusal = answered.refusal
    if refusal is not None:
        response.refusal.denial_kind = KINDS[refusal.denial_kind]
        response.refusal.reason = REASONS[refusal]
        response.refusal.message = refusal.value
