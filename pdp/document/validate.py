"""Validates an entity by itself, and brings it into its stored form.

Every write passes this check, through a document or through the administration service.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from pdp_routes import problem_of

from pdp import names
from pdp.attributes import normalise_attributes
from pdp.decision import ConditionInvalid, compile_condition
from pdp.document.nodes import Path
from pdp.document.timestamps import TIME_MAX, TIME_MIN
from pdp.errors import InvalidRequest, LimitExceeded, Violation
from pdp.model import (
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
    ToOrganizationRole,
    ToUser,
    User,
)

E = TypeVar("E", bound=Entity)
Problem = tuple[Path, str]
"""The path of a field, named as in the contract, and its problem."""


def display_key(key: Key) -> str:
    """A key as text for people."""
    return "/".join(key)


def checked(entity: E) -> tuple[E, list[Problem]]:
    """The stored form of an entity (attributes copied, times in whole microseconds, inherited roles
    sorted) and all its problems. An entity with a problem must not be stored."""
    problems = [
        (_path(violation.field), violation.description)
        for violation in _violations(entity)
        if violation is not None
    ]
    stored: Any = entity
    match stored:
        case Role() if stored.inherits:
            stored = replace(stored, inherits=tuple(sorted(set(stored.inherits))))
        case Grant(not_before=None, expires_at=None):
            pass
        case Grant() if not problems:
            stored = replace(
                stored,
                not_before=_microseconds(stored.not_before),
                expires_at=_microseconds(stored.expires_at),
            )
        case User() | Resource():
            try:
                attributes = normalise_attributes(stored.attributes, "attributes")
                stored = (
                    replace(stored, attributes=attributes)
                    if isinstance(stored, User)
                    else stored._replace(attributes=attributes)
                )
            except InvalidRequest as error:
                problems += [
                    (_path(violation.field), violation.description)
                    for violation in error.violations
                ]
            except LimitExceeded as error:
                problems.append((("attributes",), error.message))
    return stored, problems


def _path(field: str) -> Path:
    # Only the first part is looked up, and no field name contains a dot.
    return tuple(field.split("."))


def _violations(entity: Entity) -> Iterable[Violation | None]:
    match entity:
        case Permission():
            yield names.check_permission(entity.name, "name")
            yield names.check_description(entity.description, "description")
        case ResourceType():
            yield names.check_resource_type(entity.name, "name")
        case Role():
            yield names.check_role(entity.name, "name")
            yield names.check_description(entity.description, "description")
            for name in entity.inherits:
                yield names.check_role(name, "inherits")
        case Rule():
            yield names.check_rule_id(entity.id, "id")
            yield names.check_role(entity.role, "role")
            yield names.check_permission_pattern(entity.permission, "permission")
            yield _check_condition(entity.condition)
            yield names.check_description(entity.description, "description")
        case Grant():
            yield from _grant_violations(entity)
        case Route():
            problem = problem_of(entity.route, entity.needs)
            yield None if problem is None else Violation("route", problem)
        case User():
            yield names.check_identifier(entity.id, "id")
            yield names.check_description(entity.email, "email")
            yield names.check_description(entity.name, "name")
        case Organization():
            yield names.check_identifier(entity.id, "id")
            yield names.check_description(entity.slug, "slug")
            yield names.check_description(entity.name, "name")
        case Membership():
            yield names.check_identifier(entity.organization_id, "organization_id")
            yield names.check_identifier(entity.user_id, "user_id")
            yield names.check_identifier(entity.role, "role")
        case Resource():
            yield from _resource_violations(entity)


def _resource_violations(resource: Resource) -> Iterator[Violation | None]:
    yield from _ref_violations(ResourceRef(resource.type, resource.id), "")
    if resource.organization_id is not None:
        yield names.check_identifier(resource.organization_id, "organization_id")
    if resource.parent is not None:
        yield from _ref_violations(resource.parent, "parent.")


def _grant_violations(grant: Grant) -> Iterator[Violation | None]:
    yield names.check_identifier(grant.id, "id")
    yield names.check_role(grant.role, "role")
    match grant.subject:
        case ToUser(user_id):
            yield names.check_identifier(user_id, "user_id")
        case ToOrganizationRole(organization_role):
            yield names.check_identifier(organization_role, "organization_role")
    match grant.scope:
        case InOrganization(organization_id):
            yield names.check_identifier(organization_id, "organization_id")
        case OnResource(resource):
            yield from _ref_violations(resource, "resource.")
    yield _check_time(grant.not_before, "not_before")
    yield _check_time(grant.expires_at, "expires_at")
    if (
        grant.not_before is not None
        and grant.expires_at is not None
        and not grant.not_before < grant.expires_at
    ):
        yield Violation("expires_at", "must be after not_before")


def _ref_violations(ref: ResourceRef, prefix: str) -> Iterator[Violation | None]:
    yield names.check_resource_type(ref.type, f"{prefix}type")
    yield names.check_identifier(ref.id, f"{prefix}id")


def _check_condition(source: str) -> Violation | None:
    if not source:
        return None
    try:
        compile_condition(source)
    except ConditionInvalid as error:
        place = (
            f"line {error.line}, column {error.column}"
            if error.line > 1
            else (f"column {error.column}")
        )
        return Violation("condition", f"{error.message} ({place})")
    return None


def _check_time(seconds: float | None, field: str) -> Violation | None:
    # This comparison fails for NaN.
    if seconds is None or TIME_MIN <= seconds < TIME_MAX:
        return None
    return Violation(field, "must be within the years 0001 to 9999")


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1_000_000) / 1_000_000
