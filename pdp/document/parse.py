"""Text -> PolicyDocument: structure, then meaning, then references; all problems at once."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pdp_routes import PUBLIC, Needs
from pydantic import ValidationError

from pdp.document import shapes
from pdp.document.ids import derived_grant_id, derived_rule_id
from pdp.document.json_text import is_json, read_json
from pdp.document.nodes import Node, Path, path_text, plain, spot_of
from pdp.document.policy_document import Place, PolicyDocument
from pdp.document.references import reference_violations
from pdp.document.timestamps import parse_time
from pdp.document.validate import checked, display_key
from pdp.document.yaml_text import read_yaml
from pdp.errors import InvalidPolicy, Violation
from pdp.kinds import SECTIONS, kind_of
from pdp.limits import VIOLATIONS_MAX
from pdp.model import (
    EVERYWHERE,
    Effect,
    Entity,
    Grant,
    InOrganization,
    Key,
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
    Scope,
    Subject,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
    key_of,
)

S = TypeVar("S", bound=shapes.Shape)
E = TypeVar("E", bound=Entity)

_FIELD_NAMES = {
    # where the document's word differs from the contract's
    "condition": "when",
    "user_id": "user",
    "organization_id": "organization",
}


def parse_document(text: str) -> PolicyDocument:
    """Reads a policy document, in YAML or JSON.

    Raises InvalidPolicy with all problems (at most VIOLATIONS_MAX of them), each with path and
    place; LimitExceeded where the text is longer than DOCUMENT_BYTES_MAX.
    """
    root, duplicate_keys = read_json(text) if is_json(text) else read_yaml(text)
    reader = _Reader(root, duplicate_keys)
    document = reader.document()
    refuse([*reader.violations, *reference_violations(reader.best_effort(document))])
    return document


def refuse(violations: list[Violation]) -> None:
    """Raises InvalidPolicy, by line, if there are any."""
    if not violations:
        return
    ordered = sorted(violations, key=lambda violation: violation.line or 0)
    more = len(ordered) - VIOLATIONS_MAX
    if more > 0:
        ordered = ordered[:VIOLATIONS_MAX]
        ordered.append(Violation("document", f"has {more} more problems"))
    raise InvalidPolicy(*ordered)


class _Reader:
    """Reads one document; gathers what is wrong with it instead of stopping."""

    def __init__(self, root: Node, violations: list[Violation]) -> None:
        self._root = root
        self._tree: Mapping[str, Any] = {}
        self.violations = violations
        self._places: dict[tuple[str, Key], Place] = {}
        self._named_roles: list[Role] = []

    def document(self) -> PolicyDocument:
        tree = plain(self._root)
        if not isinstance(tree, dict):
            self._wrong((), "must be a mapping of sections")
            tree = {}
        self._tree = tree
        for name in tree:
            if name not in (*SECTIONS, "version"):
                self._wrong((name,), f"is not a section (sections: {', '.join(SECTIONS)})")
        if "version" in tree and (tree["version"] != 1 or tree["version"] is True):
            self._wrong(("version",), "must be 1")
        roles, rules = self._roles()
        return PolicyDocument(
            permissions=self._permissions(),
            resource_types=self._resource_types(),
            roles=roles,
            rules=rules,
            grants=self._section("grants", shapes.GrantShape, _grant),
            routes=self._routes(),
            users=self._section("users", shapes.UserShape, _user),
            organizations=self._section("organizations", shapes.OrganizationShape, _organization),
            memberships=self._section("memberships", shapes.MembershipShape, _membership),
            resources=self._section("resources", shapes.ResourceShape, _resource),
            places=self._places,
        )

    def best_effort(self, document: PolicyDocument) -> PolicyDocument:
        """The document with the roles that have problems too, and without resources where some
        have: what refers to a faulty entity must not be told that there is none."""
        faulty = any(one.field.startswith("resources") for one in self.violations)
        return dataclasses.replace(
            document,
            roles=None if document.roles is None else tuple(self._named_roles),
            resources=None if faulty else document.resources,
        )

    def _permissions(self) -> tuple[Permission, ...] | None:
        items = self._items("permissions", list | dict)
        if items is None:
            return None
        found = []
        for key, value in items:
            path = ("permissions", key)
            name, description = (key, value or "") if isinstance(key, str) else (value, "")
            if not isinstance(name, str) or not isinstance(description, str):
                self._wrong(path, "must be text; put it in quotes")
                continue
            found += self._accept(Permission(name, description), path)
        return by_key(found)

    def _resource_types(self) -> tuple[ResourceType, ...] | None:
        items = self._items("resource_types", dict)
        if items is None:
            return None
        found: list[ResourceType] = []
        for name, value in items:
            path = ("resource_types", name)
            shape = self._shape(shapes.ResourceTypeShape, {} if value is None else value, path)
            if shape is not None:
                required = shape.stored == "required"
                found += self._accept(ResourceType(name, Tenancy(shape.tenancy), required), path)
        return by_key(found)

    def _roles(self) -> tuple[tuple[Role, ...] | None, tuple[Rule, ...] | None]:
        items = self._items("roles", dict)
        if items is None:
            return None, None
        roles: list[Role] = []
        rules: list[tuple[Rule, Path]] = []
        for name, value in items:
            path = ("roles", name)
            shape = self._shape(shapes.RoleShape, {} if value is None else value, path)
            if shape is None:
                self._named_roles.append(Role(name))
                continue
            role = Role(name, shape.description, tuple(shape.inherits))
            self._named_roles.append(role)
            roles += self._accept(role, path)
            for effect in Effect:
                for index, written in enumerate(getattr(shape, effect.value)):
                    at = (*path, effect.value, index)
                    mapping = {"permission": written} if isinstance(written, str) else written
                    rule = self._shape(shapes.RuleShape, mapping, at)
                    if rule is None:
                        continue
                    one = Rule(
                        rule.id, role.name, effect, rule.permission, rule.when, rule.description
                    )
                    rules.append((one, at))
        return by_key(roles), by_key(self._identified(rules))

    def _identified(self, rules: list[tuple[Rule, Path]]) -> Iterator[Rule]:
        """Gives the rules that have none an id, apart from all others."""
        taken = {rule.id for rule, _ in rules}
        contents: dict[tuple[str, Effect, str, str], int] = {}
        for rule, path in rules:
            if rule.id:
                yield from self._accept(rule, path, implied=("role",))
                continue
            content = (rule.role, rule.effect, rule.permission, rule.condition)
            if content in contents:
                self._wrong(path, f"says the same as line {contents[content]}")
                continue
            contents[content] = spot_of(self._root, path).line
            base = rule_id = derived_rule_id(rule)
            number = 1
            while rule_id in taken:
                number += 1
                rule_id = f"{base}.{number}"
            taken.add(rule_id)
            named = dataclasses.replace(rule, id=rule_id)
            yield from self._accept(named, path, implied=("role", "id"))

    def _routes(self) -> tuple[Route, ...] | None:
        items = self._items("routes", dict)
        if items is None:
            return None
        found: list[Route] = []
        for route, value in items:
            path = ("routes", route)
            if value == PUBLIC.value:
                found += self._accept(Route(route, PUBLIC), path)
                continue
            written = {"permission": value} if isinstance(value, str) else value
            if not isinstance(written, dict):
                self._wrong(path, "must be a permission, public, or a mapping")
                continue
            shape = self._shape(shapes.RouteShape, written, path)
            if shape is not None:
                needs = Needs(shape.permission, shape.resource)
                found += self._accept(Route(route, needs), path)
        return by_key(found)

    def _section(self, name: str, shape: type[S], build: Callable[[S], E]) -> tuple[E, ...] | None:
        items = self._items(name, list)
        if items is None:
            return None
        found: list[E] = []
        for index, value in items:
            path = (name, index)
            before = len(self.violations)
            read = self._shape(shape, value, path)
            if read is None:
                continue
            try:
                entity = build(read)
            except _Wrong as wrong:
                if not wrong.field and len(self.violations) > before:
                    continue  # it may only look so without the field that is none
                self._wrong((*path, wrong.field) if wrong.field else path, wrong.description)
                continue
            found += self._accept(entity, path)
        return by_key(found)

    def _items(self, name: str, types: Any) -> Iterator[tuple[Any, Any]] | None:
        """The items of a section with their keys or indexes; None: the section is left out."""
        if name not in self._tree:
            return None
        section = self._tree[name]
        if not isinstance(section, types):
            kinds = {list: "a list", dict: "a mapping", list | dict: "a list or a mapping"}
            hint = "; write [] or {} where there are none" if section is None else ""
            self._wrong((name,), f"must be {kinds[types]}{hint}")
            return iter(())
        return iter(section.items() if isinstance(section, dict) else enumerate(section))

    def _shape(self, shape: type[S], value: Any, path: Path) -> S | None:
        """The item as far as it can be read: without fields that are none, so that they hide no
        other problem of it. Whatever is wrong is noted, and then nothing of the document counts."""
        try:
            return shape.model_validate(value)
        except ValidationError as error:
            found = error.errors(include_url=False)
        for one in found:
            self._wrong((*path, *one["loc"]), shapes.sentence(one, shape))
        unknown = {one["loc"][0] for one in found if one["type"] == "extra_forbidden"}
        if not isinstance(value, dict) or not unknown:
            return None
        try:
            return shape.model_validate({key: value[key] for key in value if key not in unknown})
        except ValidationError:
            return None

    def _accept(self, entity: E, path: Path, *, implied: tuple[str, ...] = ()) -> list[E]:
        """The entity as it is stored, or nothing and a violation for each of its problems.

        `implied` fields are not written in the document: their problems are told elsewhere.
        """
        entity, problems = checked(entity)
        for (field, *rest), description in problems:
            if field == "route" or (
                field == "name" and isinstance(entity, Permission | ResourceType | Role)
            ):
                self._wrong(path, description)
            elif field not in implied:
                self._wrong((*path, _FIELD_NAMES.get(str(field), field), *rest), description)
        kind, key = kind_of(entity), key_of(entity)
        first = self._places.get((kind, key))
        if first is not None:
            text = f"the {kind} {display_key(key)!r} is named twice; first on line {first.line}"
            self._wrong(path, text)
            return []
        self._places[kind, key] = Place(path_text(path), *spot_of(self._root, path))
        return [] if problems else [entity]

    def _wrong(self, path: Path, description: str) -> None:
        spot = spot_of(self._root, path)
        self.violations.append(Violation(path_text(path), description, *spot))


def by_key(entities: Iterable[E]) -> tuple[E, ...]:
    """Ordered by key, so that the same content is the same document."""
    return tuple(sorted(entities, key=key_of))


class _Wrong(Exception):
    """What is wrong with a field of an item."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(description)
        self.field = field
        self.description = description


def _grant(shape: shapes.GrantShape) -> Grant:
    subject: Subject
    if shape.user is not None and shape.organization_role is None:
        subject = ToUser(shape.user)
    elif shape.organization_role is not None and shape.user is None:
        subject = ToOrganizationRole(shape.organization_role)
    else:
        raise _Wrong("", "must name either a user or an organization_role")
    scope: Scope = EVERYWHERE
    if shape.organization is not None:
        if shape.resource is not None:
            raise _Wrong("resource", "a grant holds in an organization or on a resource, not both")
        scope = InOrganization(shape.organization)
    elif shape.resource is not None:
        scope = OnResource(_ref(shape.resource))
    grant = Grant(
        shape.id,
        shape.role,
        subject,
        scope,
        _time("not_before", shape.not_before),
        _time("expires_at", shape.expires_at),
    )
    return grant if grant.id else dataclasses.replace(grant, id=derived_grant_id(grant))


def _time(field: str, text: str | None) -> float | None:
    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise _Wrong(field, str(error)) from None


def _ref(shape: shapes.ResourceRefShape) -> ResourceRef:
    return ResourceRef(shape.type, shape.id)


def _user(shape: shapes.UserShape) -> User:
    status = UserStatus(shape.status)
    return User(shape.id, shape.email, shape.name, status, shape.attributes)


def _organization(shape: shapes.OrganizationShape) -> Organization:
    return Organization(shape.id, shape.slug, shape.name)


def _membership(shape: shapes.MembershipShape) -> Membership:
    return Membership(shape.organization, shape.user, shape.role)


def _resource(shape: shapes.ResourceShape) -> Resource:
    parent = None if shape.parent is None else _ref(shape.parent)
    return Resource(shape.type, shape.id, shape.organization, parent, shape.attributes)
