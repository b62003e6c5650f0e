"""Converts a dictionary to a google.protobuf.Struct, strictly.

A value without an exact form there is refused, because a condition would read another value than
the application wrote.
"""

import math
from collections.abc import Mapping

from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value

ATTRIBUTE_DEPTH_MAX = 16
INTEGER_MAX = 2**53
"""Struct stores numbers as IEEE doubles, which are not exact for all integers beyond this."""


def to_struct(attributes: Mapping[str, object], name: str) -> Struct:
    """`attributes` as a Struct. Error messages contain `name`, but never values.

    Raises:
        TypeError: a value without a form in JSON (dates, sets, bytes, Decimal, keys that are not
            str).
        ValueError: NaN, infinities, integers beyond 2**53, text that is not Unicode, and more than
            16 levels.
    """
    struct = Struct()
    _fill_struct(struct, attributes, name, 1)
    return struct


def _fill_struct(struct: Struct, mapping: Mapping[str, object], path: str, depth: int) -> None:
    if type(mapping) is not dict and not isinstance(mapping, Mapping):  # the second test is slow
        raise TypeError(f"{path} must be a mapping, not {type(mapping).__name__}")
    _check_depth(path, depth)
    fields = struct.fields
    for key, value in mapping.items():
        if not isinstance(key, str):
            raise TypeError(f"{path}: a key must be a str, not {type(key).__name__}")
        _check_text(key, f"a key of {path}")
        _fill_value(fields[key], value, f"{path}.{key}", depth)


def _fill_value(target: Value, value: object, path: str, depth: int) -> None:
    match value:
        case str():
            _check_text(value, path)
            target.string_value = value
        case None:
            target.null_value = NULL_VALUE
        case bool():  # before the numbers, because a bool is an int in Python
            target.bool_value = value
        case int():
            if abs(value) > INTEGER_MAX:
                raise ValueError(f"{path}: an integer beyond 2**53 is not exact; send a str")
            target.number_value = float(value)
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{path}: a number must be finite")
            target.number_value = value
        case list() | tuple():
            _check_depth(path, depth + 1)
            target.list_value.SetInParent()
            for index, item in enumerate(value):
                _fill_value(target.list_value.values.add(), item, f"{path}[{index}]", depth + 1)
        case Mapping():
            target.struct_value.SetInParent()
            _fill_struct(target.struct_value, value, path, depth + 1)
        case _:
            raise TypeError(f"{path}: {type(value).__name__} has no form in JSON")


def _check_depth(path: str, depth: int) -> None:
    if depth > ATTRIBUTE_DEPTH_MAX:
        raise ValueError(f"{path}: deeper than {ATTRIBUTE_DEPTH_MAX} levels")


def _check_text(text: str, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        # A new exception, because the original contains the whole text.
        raise ValueError(f"{path}: not Unicode text (a lone surrogate)") from None
