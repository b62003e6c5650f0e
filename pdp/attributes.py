"""Attributes: JSON values with every number as float, within bounds."""

from collections.abc import Mapping
from typing import Any

from pdp import limits
from pdp.errors import InvalidRequest, LimitExceeded, Violation

_NUMBER_BYTES = 8


def normalise_attributes(value: object, field: str) -> dict[str, Any]:
    """Copies a mapping into plain dicts, lists, texts, floats, booleans and None.

    Iterative, so that no nesting can exhaust the stack. The depth counts mappings and lists (the
    outer mapping is 1), nodes are all values below it. Bytes are the UTF-8 of keys and texts, 8
    for a number and 1 for any other value.

    Args:
        value: The mapping.
        field: Its name in messages.

    Raises:
        InvalidRequest: JSON or SQL text cannot hold it: NaN, infinities, integers that a double
            changes, keys that are not text, NUL, lone surrogates.
        LimitExceeded: It exceeds ATTRIBUTE_DEPTH_MAX, ATTRIBUTE_NODES_MAX or ATTRIBUTE_BYTES_MAX.
    """
    if not isinstance(value, Mapping):
        raise _invalid(field, "must be a mapping")
    result: dict[str, Any] = {}
    nodes = 0
    size = 0
    pending: list[tuple[object, dict[str, Any] | list[Any], str, int]] = [(value, result, field, 1)]
    while pending:
        source, target, path, depth = pending.pop()
        if depth > limits.ATTRIBUTE_DEPTH_MAX:
            raise LimitExceeded("attribute_depth_max", limits.ATTRIBUTE_DEPTH_MAX, depth)
        assert isinstance(source, Mapping | list | tuple)  # noqa: S101  # for the type checker
        # Counted before it is copied: a huge list costs nothing.
        nodes += len(source)
        if nodes > limits.ATTRIBUTE_NODES_MAX:
            raise LimitExceeded("attribute_nodes_max", limits.ATTRIBUTE_NODES_MAX, nodes)
        for key, item in source.items() if isinstance(source, Mapping) else enumerate(source):
            if isinstance(target, dict):
                size += _key_bytes(key, path)
                where = f"{path}.{key}"
            else:
                where = f"{path}[{key}]"
            copy: Any
            if isinstance(item, Mapping | list | tuple):
                copy = {} if isinstance(item, Mapping) else []
                size += 1
                pending.append((item, copy, where, depth + 1))
            else:
                copy, bytes_ = _scalar(item, where)
                size += bytes_
            if size > limits.ATTRIBUTE_BYTES_MAX:
                raise LimitExceeded("attribute_bytes_max", limits.ATTRIBUTE_BYTES_MAX, size)
            if isinstance(target, dict):
                target[str(key)] = copy
            else:
                target.append(copy)
    return result


def _scalar(item: object, path: str) -> tuple[Any, int]:
    """A text, boolean, None or number, and its size in bytes."""
    if isinstance(item, str):
        return item, _text_bytes(item, path)
    if item is None or isinstance(item, bool):
        return item, 1
    if isinstance(item, int | float):
        return _number(item, path), _NUMBER_BYTES
    raise _invalid(path, "is not a JSON value")


def _key_bytes(key: object, path: str) -> int:
    if not isinstance(key, str):
        raise _invalid(path, "has a key that is not text")
    return _text_bytes(key, path)


def _number(item: float, path: str) -> float:
    try:
        number = float(item)
    except OverflowError:
        raise _invalid(path, "is too large for a number") from None
    if number - number != 0.0:  # NaN and both infinities
        raise _invalid(path, "must be a finite number")
    if number != item:
        raise _invalid(path, "is an integer that a double cannot hold exactly; write it as text")
    return number


def _text_bytes(text: str, path: str) -> int:
    if "\x00" in text:
        raise _invalid(path, "must not contain NUL")
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise _invalid(path, "must not contain lone surrogates") from None


def _invalid(path: str, description: str) -> InvalidRequest:
    # A key is a caller's text: bounded, so that a message cannot grow with it.
    return InvalidRequest(Violation(path[: limits.IDENTIFIER_CHARACTERS_MAX], description))
