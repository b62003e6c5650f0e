"""Parses a policy document: structure, then meaning, then references. Reports all problems
together."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pdp_routes import PUBLIC, Needs
from pydantic import ValidationError

from pdp.document import shapes
from pdp.document.ids import derived_grant_id, derived_rule_id
from pdp.document.json_text import is_json, read_json
from pdp.document.nodes import Node, Path, path_text, plain, spot_of
from pdp.document.policy_document import Place, PolicyDocument
from pdp.document.references import reference_violations
from pdp.document.silences import silences_of
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
    # Names of fields that differ between the document and the contract.
    "condition": "when",
    "user_id": "user",
    "organization_id": "organization",
}


def parse_document(text: str) -> PolicyDocument:
    """Reads a policy document, in YAML or JSON.

    Raises:
        InvalidPolicy: the document has problems; each has its path and place, at most
            VIOLATIONS_MAX.
        LimitExceeded: the text is longer than DOCUMENT_BYTES_MAX.
    """
    root, duplicate_keys = read_json(text) if is_json(text) else read_yaml(text)
    document = parse_tree(root, duplicate_keys)
    return dataclasses.replace(document, silences=() if is_json(text) else silences_of(text))


def parse_tree(root: Node, duplicate_keys: Sequence[Violation] = ()) -> PolicyDocument:
    """Reads a policy document from a tree, which may be part of another file. `duplicate_keys` are
    the problems found while the tree was read. Raises as `parse_document`."""
    reader = _Reader(root, list(duplicate_keys))
    document = reader.document()
    refuse([*reader.violations, *reference_violations(reader.best_effort(document))])
    return document


def refuse(violations: list[Violation]) -> None:
    """Raises InvalidPolicy with the violations ordered by line, if there are any."""
    if not violations:
        return
    ordered = sorted(violations, key=lambda violation: violation.line or 0)
    more = len(ordered) - VIOLATIONS_MAX
    if more > 0:
        ordered = ordered[:VIOLATIONS_MAX]
        ordered.append(Violation("document", f"has {more} more problems"))
    raise InvalidPolicy(*ordered)


class _Reader:
    """Reads a document. Collects problems instead of stopping at the first."""

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
        """Adds the roles that have problems, and drops all resources if some have problems: a
        reference to a faulty entity must not be reported as a reference to a missing one."""
        faulty = any(violation.field.startswith("resources") for violation in self.violations)
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
                    item = self._shape(shapes.RuleShape, mapping, at)
                    if item is None:
                        continue
                    rule = Rule(
                        item.id, role.name, effect, item.permission, item.when, item.description
                    )
                    rules.append((rule, at))
        return by_key(roles), by_key(self._identified(rules))

    def _identified(self, rules: list[tuple[Rule, Path]]) -> Iterator[Rule]:
        """Gives each rule without an id a unique one."""
        taken = {rule.id for rule, _ in rules}
        contents: dict[tuple[str, Effect, str, str], int] = {}
        for rule, path in rules:
            if rule.id:
                yield from self._accept(rule, path, implied=("role",))
                continue
            content = (rule.role, rule.effect, rule.permission, rule.condition)
            if content in contents:
                self._wrong(path, f"is the same rule as on line {contents[content]}")
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
                    continue  # perhaps only because the unknown field was dropped
                self._wrong((*path, wrong.field) if wrong.field else path, wrong.description)
                continue
            found += self._accept(entity, path)
        return by_key(found)

    def _items(self, name: str, types: Any) -> Iterator[tuple[Any, Any]] | None:
        """The items of a section with their keys or indexes; None: the document omits the
        section."""
        if name not in self._tree:
            return None
        section = self._tree[name]
        if not isinstance(section, types):
            kinds = {list: "a list", dict: "a mapping", list | dict: "a list or a mapping"}
            hint = "; write [] or {} if there are none" if section is None else ""
            self._wrong((name,), f"must be {kinds[types]}{hint}")
            return iter(())
        return iter(section.items() if isinstance(section, dict) else enumerate(section))

    def _shape(self, shape: type[S], value: Any, path: Path) -> S | None:
        """Reads an item. Drops unknown fields, so that they hide no other problem of the item.
        Every problem is recorded, and then the whole document is rejected."""
        try:
            return shape.model_validate(value)
        except ValidationError as error:
            found = error.errors(include_url=False)
        for problem in found:
            self._wrong((*path, *problem["loc"]), shapes.sentence(problem, shape))
        extra = (problem for problem in found if problem["type"] == "extra_forbidden")
        unknown = {problem["loc"][0] for problem in extra}
        if not isinstance(value, dict) or not unknown:
            return None
        try:
            return shape.model_validate({key: value[key] for key in value if key not in unknown})
        except ValidationError:
            return None

    def _accept(self, entity: E, path: Path, *, implied: tuple[str, ...] = ()) -> list[E]:
        """The entity in its stored form; nothing if it has problems, each of which becomes a
        violation.

        `implied` fields are not written in the document: their problems are reported elsewhere.
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
    """Orders entities by key, so that the same content is the same document."""
    return tuple(sorted(entities, key=key_of))


class _Wrong(Exception):
    """A problem with a field of an item."""

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
