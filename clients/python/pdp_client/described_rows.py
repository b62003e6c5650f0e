"""Descriptions of an application's models, and the questions that they make of rows."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from pdp_client.plans import FilterUnsupported, Plan
from pdp_client.resource_maps import (
    Absent,
    Attributes,
    Many,
    NullAsValue,
    One,
    Reference,
    ResourceMap,
)
from pdp_client.values import Resource

_described: Final[WeakKeyDictionary[type, ResourceMap]] = WeakKeyDictionary()

Read = Callable[[Any, Any], Any]
"""Reads a column or a relation of a row; None: NULL, or no row."""
ReadMany = Callable[[Any, Any], Iterable[Any]]
"""Reads a relation to many rows."""


def describe(described: ResourceMap) -> None:
    """Remembers the description of a model."""
    _described[described.model] = described


def description_of(model: type) -> ResourceMap:
    """The description of a model. Raises FilterUnsupported if it is not registered."""
    try:
        return _described[model]
    except KeyError:
        raise FilterUnsupported(f"{model.__name__} is not registered") from None


def described_for(plan: Plan, model: type) -> ResourceMap:
    """The same, if the plan is for its type. Raises FilterUnsupported if it is not."""
    described = description_of(model)
    if described.type != plan.resource_type:
        raise FilterUnsupported(
            f"the plan is for resources of type {plan.resource_type}, and the model's are"
            f" {described.type}"
        )
    return described


def resource_from(row: Any, read: Read, read_many: ReadMany) -> Resource:
    """The resource that a row describes. Raises FilterUnsupported for an unregistered model."""
    described = description_of(type(row))
    parent = described.parent
    above = None
    if isinstance(parent, Reference):
        value = read(row, parent.id)
        above = None if value is None else Resource(parent.type, str(value))
    elif parent is not None and (related := read(row, parent)) is not None:
        above_described = description_of(type(related))
        above = Resource(above_described.type, str(read(related, above_described.id)))
    organization = None if described.organization is None else read(row, described.organization)
    return Resource(
        described.type,
        str(read(row, described.id)),
        organization_id=None if organization in (None, "") else str(organization),
        parent=above,
        attributes=_attributes(row, described.attributes, read, read_many),
    )


def _attributes(row: Any, fields: Attributes, read: Read, read_many: ReadMany) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in fields.items():
        match field:
            case Absent():
                continue
            case One(relation, inner):
                related = read(row, relation)
                if related is not None:
                    found[name] = _attributes(related, inner, read, read_many)
            case Many(relation, each):
                found[name] = [
                    _attributes(related, each, read, read_many)
                    if isinstance(each, Mapping)
                    else _scalar(read(related, each))
                    for related in read_many(row, relation)
                ]
            case NullAsValue(column):
                found[name] = _scalar(read(row, column))
            case column:
                value = _scalar(read(row, column))
                if value is not None:
                    found[name] = value
    return found


def _scalar(value: Any) -> Any:
    return value if value is None or isinstance(value, str | bool) else float(value)
