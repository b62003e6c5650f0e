"""Converts between entities and their messages. The administrator validates them, not this
module."""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from pdp_routes import PUBLIC, Needs
from pdpapi.v1 import administration_service_pb2 as pb
from pdpapi.v1 import core_pb2

from pdp import model
from pdp.errors import InvalidRequest, Violation
from pdp.wire.convert.attributes import ReadAttributes, attributes_of, struct_of
from pdp.wire.convert.times import seconds_of, set_time

_Conversion = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""Reads the field of a message, and writes it."""


class Conversion(NamedTuple):
    """Converts one kind of entity."""

    read: Callable[[Any], model.Entity]
    """Reads an entity from its message. Raises InvalidRequest."""
    write: Callable[[Any], Message]


def _alike(entity: Any, message: type[Message], **converted: _Conversion) -> Conversion:
    """Converts a kind whose message has fields of the same names; `converted` have other types."""
    names = [field.name for field in dataclasses.fields(entity)]

    def read(found: Any) -> model.Entity:
        values = {name: getattr(found, name) for name in names}
        values |= {name: converted[name][0](values[name]) for name in converted}
        made: model.Entity = entity(**values)
        return made

    def write(stored: Any) -> Message:
        values = {name: getattr(stored, name) for name in names}
        values |= {name: converted[name][1](values[name]) for name in converted}
        return message(**values)

    return Conversion(read, write)


def _enum(field: str, members: Mapping[int, enum.Enum], problem: str) -> _Conversion:
    """Converts the members of an enum. Two numbers may mean one member: the last is written."""
    numbers = {member: number for number, member in members.items()}

    def read(number: int) -> enum.Enum:
        if number not in members:
            raise InvalidRequest(Violation(field, problem.format(number)))
        return members[number]

    return read, numbers.__getitem__


def _grant_of(message: pb.Grant) -> model.Grant:
    subject: model.Subject
    match message.WhichOneof("subject"):
        case "user_id":
            subject = model.ToUser(message.user_id)
        case "organization_role":
            subject = model.ToOrganizationRole(message.organization_role)
        case _:
            raise InvalidRequest(
                Violation("grant.subject", "must name a user_id or an organization_role")
            )
    scope: model.Scope
    match message.WhichOneof("scope"):
        case "organization_id":
            scope = model.InOrganization(message.organization_id)
        case "resource":
            scope = model.OnResource(ref_of(message.resource))
        case _:
            scope = model.EVERYWHERE
    return model.Grant(
        message.id,
        message.role,
        subject,
        scope,
        _time(message, "not_before"),
        _time(message, "expires_at"),
    )


def _time(message: pb.Grant, field: str) -> float | None:
    if not message.HasField(field):  # type: ignore[arg-type]
        return None
    timestamp: Timestamp = getattr(message, field)
    return seconds_of(timestamp, f"grant.{field}")


def grant_message(entity: model.Grant) -> pb.Grant:
    """Writes a grant as its message."""
    message = pb.Grant(id=entity.id, role=entity.role)
    match entity.subject:
        case model.ToUser(user_id):
            message.user_id = user_id
        case model.ToOrganizationRole(organization_role):
            message.organization_role = organization_role
    match entity.scope:
        case model.InOrganization(organization_id):
            message.organization_id = organization_id
        case model.OnResource(ref):
            message.resource.CopyFrom(ref_message(ref))
        case _:
            pass
    if entity.not_before is not None:
        set_time(message.not_before, entity.not_before)
    if entity.expires_at is not None:
        set_time(message.expires_at, entity.expires_at)
    return message


def _route_of(message: pb.Route) -> model.Route:
    resource = message.resource or None
    if message.WhichOneof("needs") == "permission":
        return model.Route(message.route, Needs(message.permission, resource))
    if not message.public:
        raise InvalidRequest(Violation("route.needs", "must name a permission, or be public"))
    if resource is not None:
        raise InvalidRequest(Violation("route.resource", "a public route has no resource"))
    return model.Route(message.route, PUBLIC)


def _route_message(entity: model.Route) -> pb.Route:
    if isinstance(entity.needs, Needs):
        needs = entity.needs
        return pb.Route(
            route=entity.route, permission=needs.permission, resource=needs.resource or ""
        )
    return pb.Route(route=entity.route, public=True)


def ref_of(message: core_pb2.ResourceRef) -> model.ResourceRef:
    """Reads a reference to a resource from its message."""
    return model.ResourceRef(message.type, message.id)


def ref_message(ref: model.ResourceRef) -> core_pb2.ResourceRef:
    """Writes a reference to a resource as its message."""
    return core_pb2.ResourceRef(type=ref.type, id=ref.id)


def resource_of(message: core_pb2.Resource, read: ReadAttributes = attributes_of) -> model.Resource:
    """Reads a resource from its message; `read` converts its attributes."""
    return model.Resource(
        message.type,
        message.id,
        message.organization_id or None,
        ref_of(message.parent) if message.HasField("parent") else None,
        read(message.attributes, "resource.attributes") if message.HasField("attributes") else {},
    )


def _resource_message(entity: model.Resource) -> core_pb2.Resource:
    return core_pb2.Resource(
        type=entity.type,
        id=entity.id,
        organization_id=entity.organization_id or "",
        parent=None if entity.parent is None else ref_message(entity.parent),
        attributes=_attributes_message(entity.attributes),
    )


def _attributes_message(attributes: model.Attributes) -> Struct | None:
    return struct_of(attributes) if attributes else None


CONVERSIONS: Mapping[type[model.Entity], Conversion] = {
    model.Permission: _alike(model.Permission, pb.Permission),
    model.ResourceType: _alike(
        model.ResourceType,
        pb.ResourceType,
        tenancy=_enum(
            "resource_type.tenancy",
            {
                pb.TENANCY_UNSPECIFIED: model.Tenancy.ORGANIZATION,
                pb.TENANCY_ORGANIZATION: model.Tenancy.ORGANIZATION,
                pb.TENANCY_NONE: model.Tenancy.NONE,
            },
            "{} is not a tenancy",
        ),
    ),
    model.Role: _alike(
        model.Role, pb.Role, inherits=(lambda names: tuple(sorted(set(names))), tuple)
    ),
    model.Rule: _alike(
        model.Rule,
        pb.Rule,
        effect=_enum(
            "rule.effect",
            {pb.EFFECT_ALLOW: model.Effect.ALLOW, pb.EFFECT_DENY: model.Effect.DENY},
            "must be EFFECT_ALLOW or EFFECT_DENY",
        ),
    ),
    model.Grant: Conversion(_grant_of, grant_message),
    model.Route: Conversion(_route_of, _route_message),
    model.User: _alike(
        model.User,
        pb.User,
        status=_enum(
            "user.status",
            {
                pb.USER_STATUS_UNSPECIFIED: model.UserStatus.ACTIVE,
                pb.USER_STATUS_ACTIVE: model.UserStatus.ACTIVE,
                pb.USER_STATUS_DISABLED: model.UserStatus.DISABLED,
            },
            "{} is not a status",
        ),
        attributes=(
            lambda struct: attributes_of(struct, "user.attributes"),
            _attributes_message,
        ),
    ),
    model.Organization: _alike(model.Organization, pb.Organization),
    model.Membership: _alike(model.Membership, pb.Membership),
    model.Resource: Conversion(resource_of, _resource_message),
}
"""By kind: how it crosses the wire."""
