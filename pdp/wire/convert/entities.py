"""Converts between entities and their messages. The administrator validates them, not this
module."""

from google.protobuf.timestamp_pb2 import Timestamp
from pdp_routes import PUBLIC, Needs
from pdpapi.v1 import administration_service_pb2 as pb
from pdpapi.v1 import core_pb2

from pdp import model
from pdp.errors import InvalidRequest, Violation
from pdp.wire.convert.attributes import ReadAttributes, attributes_of, struct_of
from pdp.wire.convert.times import seconds_of, set_time

_EFFECTS = {pb.EFFECT_ALLOW: model.Effect.ALLOW, pb.EFFECT_DENY: model.Effect.DENY}
_EFFECT_VALUES = {effect: value for value, effect in _EFFECTS.items()}
_STATUSES = {
    pb.USER_STATUS_UNSPECIFIED: model.UserStatus.ACTIVE,
    pb.USER_STATUS_ACTIVE: model.UserStatus.ACTIVE,
    pb.USER_STATUS_DISABLED: model.UserStatus.DISABLED,
}
_STATUS_VALUES = {
    model.UserStatus.ACTIVE: pb.USER_STATUS_ACTIVE,
    model.UserStatus.DISABLED: pb.USER_STATUS_DISABLED,
}

_TENANCIES = {
    pb.TENANCY_UNSPECIFIED: model.Tenancy.ORGANIZATION,
    pb.TENANCY_ORGANIZATION: model.Tenancy.ORGANIZATION,
    pb.TENANCY_NONE: model.Tenancy.NONE,
}
_TENANCY_VALUES = {
    model.Tenancy.ORGANIZATION: pb.TENANCY_ORGANIZATION,
    model.Tenancy.NONE: pb.TENANCY_NONE,
}


def permission_of(message: pb.Permission) -> model.Permission:
    """Reads a permission from its message."""
    return model.Permission(message.name, message.description)


def permission_message(entity: model.Permission) -> pb.Permission:
    """Writes a permission as its message."""
    return pb.Permission(name=entity.name, description=entity.description)


def resource_type_of(message: pb.ResourceType) -> model.ResourceType:
    """Reads a resource type from its message. Raises InvalidRequest."""
    tenancy = _TENANCIES.get(message.tenancy)
    if tenancy is None:
        raise InvalidRequest(
            Violation("resource_type.tenancy", f"{message.tenancy} is not a tenancy")
        )
    return model.ResourceType(message.name, tenancy, message.stored_required)


def resource_type_message(entity: model.ResourceType) -> pb.ResourceType:
    """Writes a resource type as its message."""
    return pb.ResourceType(
        name=entity.name,
        tenancy=_TENANCY_VALUES[entity.tenancy],
        stored_required=entity.stored_required,
    )


def role_of(message: pb.Role) -> model.Role:
    """Reads a role from its message."""
    return model.Role(message.name, message.description, tuple(sorted(set(message.inherits))))


def role_message(entity: model.Role) -> pb.Role:
    """Writes a role as its message."""
    return pb.Role(name=entity.name, description=entity.description, inherits=entity.inherits)


def rule_of(message: pb.Rule) -> model.Rule:
    """Reads a rule from its message. Raises InvalidRequest."""
    effect = _EFFECTS.get(message.effect)
    if effect is None:
        raise InvalidRequest(Violation("rule.effect", "must be EFFECT_ALLOW or EFFECT_DENY"))
    return model.Rule(
        message.id,
        message.role,
        effect,
        message.permission,
        message.condition,
        message.description,
    )


def rule_message(entity: model.Rule) -> pb.Rule:
    """Writes a rule as its message."""
    return pb.Rule(
        id=entity.id,
        role=entity.role,
        effect=_EFFECT_VALUES[entity.effect],
        permission=entity.permission,
        condition=entity.condition,
        description=entity.description,
    )


def grant_of(message: pb.Grant) -> model.Grant:
    """Reads a grant from its message. Raises InvalidRequest."""
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


def route_of(message: pb.Route) -> model.Route:
    """Reads a route from its message. Raises InvalidRequest."""
    resource = message.resource or None
    if message.WhichOneof("needs") == "permission":
        return model.Route(message.route, Needs(message.permission, resource))
    if not message.public:
        raise InvalidRequest(Violation("route.needs", "must name a permission, or be public"))
    if resource is not None:
        raise InvalidRequest(Violation("route.resource", "a public route has no resource"))
    return model.Route(message.route, PUBLIC)


def route_message(entity: model.Route) -> pb.Route:
    """Writes a route as its message."""
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


def resource_message(entity: model.Resource) -> core_pb2.Resource:
    """Writes a resource as its message."""
    return core_pb2.Resource(
        type=entity.type,
        id=entity.id,
        organization_id=entity.organization_id or "",
        parent=None if entity.parent is None else ref_message(entity.parent),
        attributes=struct_of(entity.attributes) if entity.attributes else None,
    )


def user_of(message: pb.User) -> model.User:
    """Reads a user from its message. Raises InvalidRequest."""
    status = _STATUSES.get(message.status)
    if status is None:
        raise InvalidRequest(Violation("user.status", f"{message.status} is not a status"))
    return model.User(
        message.id,
        message.email,
        message.name,
        status,
        attributes_of(message.attributes, "user.attributes"),
    )


def user_message(entity: model.User) -> pb.User:
    """Writes a user as its message."""
    return pb.User(
        id=entity.id,
        email=entity.email,
        name=entity.name,
        status=_STATUS_VALUES[entity.status],
        attributes=struct_of(entity.attributes) if entity.attributes else None,
    )


def organization_of(message: pb.Organization) -> model.Organization:
    """Reads an organization from its message."""
    return model.Organization(message.id, message.slug, message.name)


def organization_message(entity: model.Organization) -> pb.Organization:
    """Writes an organization as its message."""
    return pb.Organization(id=entity.id, slug=entity.slug, name=entity.name)


def membership_of(message: pb.Membership) -> model.Membership:
    """Reads a membership from its message."""
    return model.Membership(message.organization_id, message.user_id, message.role)


def membership_message(entity: model.Membership) -> pb.Membership:
    """Writes a membership as its message."""
    return pb.Membership(
        organization_id=entity.organization_id, user_id=entity.user_id, role=entity.role
    )
