"""Writes a PolicyDocument as text for people that parses to the same document."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from pdp_routes import Needs
from yaml.resolver import Resolver

from pdp.document.ids import derived_grant_id, derived_rule_id
from pdp.document.policy_document import PolicyDocument
from pdp.document.timestamps import render_time
from pdp.document.yaml_text import plain_value
from pdp.model import (
    Effect,
    Entity,
    Everywhere,
    Grant,
    InOrganization,
    Membership,
    OnResource,
    Organization,
    Permission,
    Resource,
    ResourceRef,
    ResourceType,
    Role,
    Route,
    Rule,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
    key_of,
)

_WIDTH = 100
_INTEGER_MAX = 2**53
"""Doubles hold every integer up to here: such numbers are written without a fraction."""


VERSION_LINE = "version: 1\n"
"""The first line of every rendered document."""


def render_document(document: PolicyDocument) -> str:
    """The YAML text of a document, ordered by key. Omits ids that parsing derives."""
    return VERSION_LINE + render_sections(document)


def render_sections(document: PolicyDocument) -> str:
    """The text of the document's sections. The texts of several documents can be concatenated into
    a single document."""
    tree: dict[str, Any] = {}
    if document.permissions is not None:
        tree["permissions"] = _permissions(sorted(document.permissions, key=key_of))
    if document.resource_types is not None:
        tree["resource_types"] = {
            entity.name: _resource_type(entity)
            for entity in sorted(document.resource_types, key=key_of)
        }
    if document.roles is not None:
        tree["roles"] = _roles(document.roles, document.rules or ())
    if document.grants is not None:
        tree["grants"] = [_grant(entity) for entity in sorted(document.grants, key=key_of)]
    if document.routes is not None:
        tree["routes"] = {
            entity.route: _route(entity) for entity in sorted(document.routes, key=key_of)
        }
    if document.users is not None:
        tree["users"] = [_user(entity) for entity in sorted(document.users, key=key_of)]
    if document.organizations is not None:
        tree["organizations"] = [
            _organization(entity) for entity in sorted(document.organizations, key=key_of)
        ]
    if document.memberships is not None:
        tree["memberships"] = [
            _membership(entity) for entity in sorted(document.memberships, key=key_of)
        ]
    if document.resources is not None:
        tree["resources"] = [_resource(entity) for entity in sorted(document.resources, key=key_of)]
    return _dump(tree) if tree else ""


def render_more(document: PolicyDocument) -> str:
    """The items of a document's only section, a list, without the line that names the section: more
    items for a section that `render_sections` began. Empty if the section is."""
    text = render_sections(document)
    return text.partition("\n")[2] if "\n-" in text else ""


def _dump(tree: dict[str, Any]) -> str:
    text: str = yaml.dump(
        tree,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=_WIDTH,
    )
    return "\n".join(map(_escaped, text.split("\n")))


def _escaped(line: str) -> str:
    """Escapes characters that do not print, such as U+202E, which would display the line in another
    order than it is read. Texts with such characters are in double quotes (`_represent_text`), in
    which the escape means the same."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in line)


class _Line(dict[str, Any]):
    """A mapping that is written on a single line: `{role: ADMIN, user: user_1}`."""


def _without_empty(**values: Any) -> dict[str, Any]:
    """Drops empty values."""
    return {name: value for name, value in values.items() if value not in ("", None, {}, [])}


def _permissions(permissions: Sequence[Permission]) -> list[str] | dict[str, str]:
    if any(permission.description for permission in permissions):
        return {permission.name: permission.description for permission in permissions}
    return [permission.name for permission in permissions]


def _resource_type(resource_type: ResourceType) -> dict[str, Any]:
    tenants = resource_type.tenancy is Tenancy.ORGANIZATION
    return _Line(
        _without_empty(
            tenancy="" if tenants else resource_type.tenancy.value,
            stored="required" if resource_type.stored_required else "",
        )
    )


def _roles(roles: Sequence[Role], rules: Sequence[Rule]) -> dict[str, Any]:
    by_role: dict[tuple[str, Effect], list[Any]] = {}
    for rule in sorted(rules, key=key_of):
        by_role.setdefault((rule.role, rule.effect), []).append(_rule(rule))
    return {
        role.name: _without_empty(
            description=role.description,
            inherits=list(role.inherits),
            allow=by_role.get((role.name, Effect.ALLOW)),
            deny=by_role.get((role.name, Effect.DENY)),
        )
        for role in sorted(roles, key=key_of)
    }


def _rule(rule: Rule) -> str | dict[str, Any]:
    written = _without_empty(
        permission=rule.permission,
        when=rule.condition,
        id="" if rule.id == derived_rule_id(rule) else rule.id,
        description=rule.description,
    )
    return rule.permission if written.keys() == {"permission"} else written


def _grant(grant: Grant) -> dict[str, Any]:
    written = _Line(role=grant.role)
    match grant.subject:
        case ToUser(user_id):
            written["user"] = user_id
        case ToOrganizationRole(organization_role):
            written["organization_role"] = organization_role
    match grant.scope:
        case InOrganization(organization_id):
            written["organization"] = organization_id
        case OnResource(resource):
            written["resource"] = _ref(resource)
        case Everywhere():
            pass
    if grant.not_before is not None:
        written["not_before"] = render_time(grant.not_before)
    if grant.expires_at is not None:
        written["expires_at"] = render_time(grant.expires_at)
    if grant.id != derived_grant_id(grant):
        written["id"] = grant.id
    return written


def _route(route: Route) -> str | dict[str, Any]:
    needs = route.needs
    if not isinstance(needs, Needs):
        return needs.value
    if needs.resource is None:
        return needs.permission
    return _Line(permission=needs.permission, resource=needs.resource)


def as_written(entity: Entity) -> dict[str, Any]:
    """The fields of an entity that are not empty, with the names of a document; rules and grants
    without their id."""
    return _WRITERS[type(entity)](entity)


def _whole_rule(rule: Rule) -> dict[str, Any]:
    return _without_empty(
        role=rule.role,
        effect=rule.effect.value,
        permission=rule.permission,
        when=rule.condition,
        description=rule.description,
    )


def _organization(organization: Organization) -> dict[str, Any]:
    return _Line(_without_empty(id=organization.id, slug=organization.slug, name=organization.name))


def _membership(membership: Membership) -> dict[str, Any]:
    return _Line(
        organization=membership.organization_id, user=membership.user_id, role=membership.role
    )


def _ref(ref: ResourceRef) -> dict[str, str]:
    return _Line(type=ref.type, id=ref.id)


def _user(user: User) -> dict[str, Any]:
    written = _without_empty(
        id=user.id,
        email=user.email,
        name=user.name,
        status="" if user.status is UserStatus.ACTIVE else user.status.value,
        attributes=_ordered(user.attributes),
    )
    return _Line(written)


def _resource(resource: Resource) -> dict[str, Any]:
    written = _without_empty(
        type=resource.type,
        id=resource.id,
        organization=resource.organization_id,
        parent=None if resource.parent is None else _ref(resource.parent),
        attributes=_ordered(resource.attributes),
    )
    return _Line(written)


_WRITERS: Mapping[type[Entity], Callable[[Any], dict[str, Any]]] = {
    Permission: lambda entity: _without_empty(description=entity.description),
    ResourceType: _resource_type,
    Role: lambda entity: _without_empty(
        description=entity.description, inherits=list(entity.inherits)
    ),
    Rule: _whole_rule,
    Grant: lambda entity: {name: value for name, value in _grant(entity).items() if name != "id"},
    Route: lambda entity: {"needs": _route(entity)},
    User: _user,
    Organization: _organization,
    Membership: _membership,
    Resource: _resource,
}


def _ordered(value: Any) -> Any:
    """Sorts the keys, so that equal attributes give equal text. Recursive: their depth is
    bounded."""
    if isinstance(value, Mapping):
        return {key: _ordered(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value


class _Dumper(yaml.CSafeDumper):
    """Leaves a scalar unquoted only if `plain_value` reads it back and YAML 1.1 reads it the same
    way."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is not yaml.ScalarNode:
            tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
            return tag
        return _tag_of(plain_value(value)) if implicit[0] else _TEXT

    def ignore_aliases(self, data: Any) -> bool:
        return True


_TEXT = "tag:yaml.org,2002:str"
_OLD_YAML = Resolver()


def _tag_of(value: Any) -> str:
    match value:
        case str():
            return _TEXT
        case None:
            return "tag:yaml.org,2002:null"
        case bool():
            return "tag:yaml.org,2002:bool"
        case _:
            return "tag:yaml.org,2002:float"


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    old: str = _OLD_YAML.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    unclear = old != _TEXT or plain_value(text) is not text or not text.isprintable()
    style = '"' if unclear else None
    if "\n" in text and _is_block(text):
        style = "|"
    return dumper.represent_scalar(_TEXT, text, style)


def _is_block(text: str) -> bool:
    """Whether a literal block preserves the text."""
    lines = text.removesuffix("\n").split("\n")
    return all(line.isprintable() and line == line.strip() and line for line in lines)


def _represent_number(dumper: _Dumper, number: float) -> yaml.Node:
    number = float(number)
    whole = number.is_integer() and abs(number) <= _INTEGER_MAX
    return dumper.represent_scalar(_tag_of(number), str(int(number)) if whole else repr(number))


def _represent_line(dumper: _Dumper, line: _Line) -> yaml.Node:
    return dumper.represent_mapping("tag:yaml.org,2002:map", line, flow_style=True)


_Dumper.add_representer(_Line, _represent_line)
_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_number)
_Dumper.add_representer(int, _represent_number)
