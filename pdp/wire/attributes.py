"""google.protobuf.Struct <-> attributes. Own code, because the library's converters recurse without
a bound on what a stranger sends."""

import math
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from pdp.errors import InvalidRequest, LimitExceeded, Violation
from pdp.limits import ATTRIBUTE_BYTES_MAX, ATTRIBUTE_DEPTH_MAX, ATTRIBUTE_NODES_MAX
from pdp.model import Attributes


def attributes_of(struct: Struct, field: str) -> dict[str, Any]:
    """The attributes that a Struct holds. `field` names it in errors.

    Raises InvalidRequest (too deep, a number that JSON does not know) and LimitExceeded.
    """
    size = struct.ByteSize()
    if not size:
        return {}
    if size > ATTRIBUTE_BYTES_MAX:
        raise LimitExceeded("attribute_bytes_max", ATTRIBUTE_BYTES_MAX, size)
    return _Reader(field).mapping(struct, 1)


def struct_of(attributes: Attributes) -> Struct:
    """The Struct that holds attributes (values of the database, so within the bounds)."""
    struct = Struct()
    struct.update(dict(attributes))
    return struct


class _Reader:
    """Counts what it has read of one Struct; its recursion ends at ATTRIBUTE_DEPTH_MAX."""

    __slots__ = ("_field", "_nodes")

    def __init__(self, field: str) -> None:
        self._field = field
        self._nodes = 0

    def mapping(self, struct: Struct, depth: int) -> dict[str, Any]:
        self._enter(len(struct.fields), depth)
        return {name: self._value(value, depth) for name, value in struct.fields.items()}

    def _list(self, values: ListValue, depth: int) -> list[Any]:
        self._enter(len(values.values), depth)
        return [self._value(value, depth) for value in values.values]

    def _enter(self, children: int, depth: int) -> None:
        if depth > ATTRIBUTE_DEPTH_MAX:
            raise InvalidRequest(
                Violation(
                    self._field, f"is deeper than attribute_depth_max ({ATTRIBUTE_DEPTH_MAX})"
                )
            )
        self._nodes += children
        if self._nodes > ATTRIBUTE_NODES_MAX:
            raise LimitExceeded("attribute_nodes_max", ATTRIBUTE_NODES_MAX, self._nodes)

    def _value(self, value: Value, depth: int) -> Any:
        match value.WhichOneof("kind"):
            case "string_value":
                return value.string_value
            case "number_value":
                if not math.isfinite(value.number_value):
                    raise InvalidRequest(Violation(self._field, "holds NaN or an infinity"))
                return value.number_value
            case "bool_value":
                return value.bool_value
            case "struct_value":
                return self.mapping(value.struct_value, depth + 1)
            case "list_value":
                return self._list(value.list_value, depth + 1)
            case "null_value":
                return None
            case _:
                raise InvalidRequest(Violation(self._field, "holds a value without a kind"))
