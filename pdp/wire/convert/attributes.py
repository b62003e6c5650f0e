"""Converts between google.protobuf.Struct and attributes.

The library's own converters recurse without a bound on data that an unknown client sends.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from pdp.errors import InvalidRequest, LimitExceeded, Violation
from pdp.limits import ATTRIBUTE_BYTES_MAX, ATTRIBUTE_DEPTH_MAX, ATTRIBUTE_NODES_MAX
from pdp.model import Attributes

ReadAttributes: TypeAlias = Callable[[Struct, str], Attributes]
"""Reads the attributes of a Struct; raises as `attributes_of`."""


def attributes_of(struct: Struct, field: str) -> dict[str, Any]:
    """The attributes of a Struct. `field` names it in errors.

    Raises:
        InvalidRequest: it is too deep, or has a number that JSON cannot express.
        LimitExceeded: it is too large.
    """
    size = struct.ByteSize()
    if not size:
        return {}
    if size > ATTRIBUTE_BYTES_MAX:
        raise LimitExceeded("attribute_bytes_max", ATTRIBUTE_BYTES_MAX, size)
    return _mapping(struct, field, 1, [0])


def struct_of(attributes: Attributes) -> Struct:
    """A Struct with the attributes (stored values, so within the bounds)."""
    struct = Struct()
    struct.update(dict(attributes))
    return struct


def _mapping(struct: Struct, field: str, depth: int, nodes: list[int]) -> dict[str, Any]:
    """Reads a Struct. Recurses to at most ATTRIBUTE_DEPTH_MAX; `nodes` counts the nodes read so
    far."""
    fields = struct.fields
    _enter(len(fields), field, depth, nodes)
    attributes = {}
    # By key, because items() of a protobuf map is a slow generator in Python.
    for name in fields:
        if "\0" in name:
            raise _nul(field)
        attributes[name] = _value(fields[name], field, depth, nodes)
    return attributes


def _list(values: ListValue, field: str, depth: int, nodes: list[int]) -> list[Any]:
    _enter(len(values.values), field, depth, nodes)
    return [_value(value, field, depth, nodes) for value in values.values]


def _nul(field: str) -> InvalidRequest:
    # The runtime of conditions would truncate the text at the NUL.
    return InvalidRequest(Violation(field, "holds a NUL character"))


def _enter(children: int, field: str, depth: int, nodes: list[int]) -> None:
    if depth > ATTRIBUTE_DEPTH_MAX:
        limit = f"is deeper than attribute_depth_max ({ATTRIBUTE_DEPTH_MAX})"
        raise InvalidRequest(Violation(field, limit))
    nodes[0] += children
    if nodes[0] > ATTRIBUTE_NODES_MAX:
        raise LimitExceeded("attribute_nodes_max", ATTRIBUTE_NODES_MAX, nodes[0])


def _value(value: Value, field: str, depth: int, nodes: list[int]) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            text = value.string_value
            if "\0" in text:
                raise _nul(field)
            return text
        case "number_value":
            if not math.isfinite(value.number_value):
                raise InvalidRequest(Violation(field, "holds NaN or an infinity"))
            return value.number_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _mapping(value.struct_value, field, depth + 1, nodes)
        case "list_value":
            return _list(value.list_value, field, depth + 1, nodes)
        case "null_value":
            return None
        case _:
            raise InvalidRequest(Violation(field, "holds a value without a kind"))
