"""AccessQueryService: an actor's permissions and resources, and a resource's actors."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from pdpapi.v1 import access_query_service_pb2 as pb

from pdp import model, names
from pdp.access_queries import AccessQueries, AllowedActor, Answered, Place
from pdp.concurrency.pacing import Pace
from pdp.concurrency.waiting import in_pool
from pdp.decision import AccessPath
from pdp.errors import InvalidRequest, LimitExceeded, Violation
from pdp.limits import BATCH_ITEMS_MAX, MESSAGE_BYTES_MAX
from pdp.wire.callers import Caller
from pdp.wire.convert.attributes import attributes_of
from pdp.wire.convert.filters import message_of_plan
from pdp.wire.convert.pages import Pages, page_size
from pdp.wire.convert.times import set_duration, set_time
from pdp.wire.methods import Method, rpc
from pdp.wire.services.decision import (
    CHECK_BYTES_MAX,
    KINDS,
    REASONS,
    check_permission,
    checked_resource,
    write_actor,
)

SERVICE = pb.DESCRIPTOR.services_by_name["AccessQueryService"].full_name
PAGE_BYTES_MAX = MESSAGE_BYTES_MAX // 2


def access_query_methods(
    queries: AccessQueries, pages: Pages, pool: ThreadPoolExecutor
) -> Sequence[Method]:
    """The methods of AccessQueryService. `pool` reads the secret of page tokens, once."""

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
                pb.ResourcePermissions(allowed=result.allowed, denied=result.denied)
                for result in results
            ]
        )
        _write_answered(response, answered)
        return response

    async def resources(
        request: pb.ListAllowedResourcesRequest, caller: Caller
    ) -> pb.ListAllowedResourcesResponse:
        _check_permission_and_type(request)
        size = page_size(request)
        place = await in_pool(pool, lambda: pages.unseal(request))
        answered, page = await queries.resources(
            request.actor_token,
            request.permission,
            request.resource_type,
            attributes_of(request.context, "context"),
            caller.name,
            size=size,
            place=None if place is None else Place(*place),
            at_least_revision=request.at_least_revision,
        )
        response = pb.ListAllowedResourcesResponse(resource_ids=page.ids)
        after = page.after
        if after is not None:
            where = (after.user_id, after.organization_id, after.after)
            response.next_page_token = await in_pool(pool, lambda: pages.seal(request, where))
        _write_answered(response, answered)
        return response

    async def actors(
        request: pb.ListAllowedActorsRequest, caller: Caller
    ) -> pb.ListAllowedActorsResponse:
        wrong = check_permission(request.permission)
        if wrong is not None:
            raise InvalidRequest(wrong)
        resource = checked_resource(request.resource) if request.HasField("resource") else None
        size = page_size(request)
        place = await in_pool(pool, lambda: pages.unseal(request))
        user_id, organization_id = place or ("", "")
        answered, page = await queries.actors(
            request.permission,
            resource,
            caller.name,
            size=size,
            after=(user_id, organization_id),
            at_least_revision=request.at_least_revision,
        )
        response = pb.ListAllowedActorsResponse(
            query_id=answered.query_id, revision=answered.revision, epoch=answered.epoch
        )
        after, room = page.after, PAGE_BYTES_MAX
        for actor in page.actors:
            message = _actor_message(actor)
            room -= message.ByteSize()
            if response.actors and room < 0:
                last = response.actors[-1]
                after = (last.user_id, last.organization_id)
                break
            response.actors.append(message)
        if after is not None:
            where = after
            response.next_page_token = await in_pool(pool, lambda: pages.seal(request, where))
        return response

    async def plan(request: pb.PlanResourcesRequest, caller: Caller) -> pb.PlanResourcesResponse:
        _check_permission_and_type(request)
        answered, found, decided_at = await queries.plan(
            request.actor_token,
            request.permission,
            request.resource_type,
            attributes_of(request.context, "context"),
            caller.name,
            allow_superset=request.allow_superset,
            at_least_revision=request.at_least_revision,
        )
        response = pb.PlanResourcesResponse(
            plan=message_of_plan(found, request.permission, request.resource_type)
        )
        if response.ByteSize() > PAGE_BYTES_MAX:
            raise LimitExceeded("message_bytes_max", PAGE_BYTES_MAX, response.ByteSize())
        until = found.reusable_until
        if until is not None and until > decided_at:
            set_time(response.reusable_until, until)
            set_duration(response.reusable_for, until - decided_at)
        _write_answered(response, answered)
        return response

    return (
        rpc(SERVICE, "PlanResources", "decide", plan, CHECK_BYTES_MAX),
        rpc(SERVICE, "ListAllowedPermissions", "decide", permissions, MESSAGE_BYTES_MAX),
        rpc(SERVICE, "ListAllowedResources", "decide", resources, CHECK_BYTES_MAX),
        rpc(SERVICE, "ListAllowedActors", "audit", actors, CHECK_BYTES_MAX),
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
            if pace.is_over():
                await pace.give_way()
    except InvalidRequest as error:
        place = f"resources[{len(resources)}]"
        raise InvalidRequest(
            *(replace(v, field=v.field.replace("resource", place, 1)) for v in error.violations)
        ) from None
    return resources


def _check_permission_and_type(request: Any) -> None:
    wrong = check_permission(request.permission)
    wrong = wrong or names.check_resource_type(request.resource_type, "resource_type")
    if wrong is not None:
        raise InvalidRequest(wrong)


def _write_answered(response: Any, answered: Answered) -> None:
    """Writes the fields that the answers to an actor's queries share."""
    response.query_id = answered.query_id
    response.revision = answered.revision
    response.epoch = answered.epoch
    if isinstance(answered.token, model.VerifiedToken):
        write_actor(response.actor, answered.token.actor)
    if answered.refusal is not None:
        write_refusal(response.refusal, answered.refusal)


def write_refusal(message: pb.QueryRefusal, refusal: model.Reason) -> None:
    """Writes why everything is denied to an actor."""
    message.denial_kind = KINDS[refusal.denial_kind]
    message.reason = REASONS[refusal]
    message.message = refusal.value


def _actor_message(actor: AllowedActor) -> pb.AllowedActor:
    return pb.AllowedActor(
        user_id=actor.user_id,
        organization_id=actor.organization_id,
        allowed_by=map(path_message, actor.paths.allowed_by),
        denied_by=map(path_message, actor.paths.denied_by),
    )


def path_message(path: AccessPath) -> pb.AccessPath:
    """Converts a rule that decides, and the grant through which it applies."""
    message = pb.AccessPath(
        role=path.grant.role,
        grant_id=path.grant.id,
        rule_id=path.rule_id,
        condition=path.condition,
    )
    if path.grant.expires_at is not None:
        set_time(message.expires_at, path.grant.expires_at)
    return message
