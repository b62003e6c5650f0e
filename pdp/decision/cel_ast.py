"""Reads a compiled CEL expression from its serialised form.

The format is `cel.expr.CheckedExpr` (https://github.com/google/cel-spec, the files checked.proto
and syntax.proto in proto/cel/expr), which the runtime writes inside a `google.protobuf.Any`. This
module reads only the few fields that it needs, so it needs no generated code. Code that walks a
tree must not recurse: a text of 4,096 characters can nest thousands of levels.
"""

import enum
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

_ANY_TYPE = b"type.googleapis.com/cel.expr.CheckedExpr"
_ANY_TYPE_URL, _ANY_VALUE, _CHECKED_EXPR, _REFERENCES, _TYPES, _SOURCE_INFO = 1, 2, 4, 2, 3, 5
_POSITIONS = 4
_NODES_KEPT: Final = 8_192
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Kind(enum.IntEnum):
    """The kind of an expression. The numbers are those of the fields of `Expr.expr_kind`."""

    NOTHING = 0
    CONSTANT = 3
    VARIABLE = 4
    SELECT = 5
    CALL = 6
    LIST = 7
    STRUCT = 8
    COMPREHENSION = 9


Constant = str | bool | int | float | bytes | None


class Node(NamedTuple):
    """An expression. Its operands stay encoded until they are read."""

    kind: Kind
    id: int
    name: str = ""
    """Name of the variable, the selected field, the called function or the accumulator of a
    comprehension."""
    constant: Constant = None
    """The value of a constant."""
    tests: bool = False
    """Whether a selection only tests that the field is present: `has(a.b)`."""
    inner: tuple[memoryview, ...] = ()
    """The operands; the target of a call comes first."""
    element: str = ""
    """The variable that a comprehension binds to each element of its range."""
    has_target: bool = False
    """Whether a call is written `first.name(...)`."""


class Tree(NamedTuple):
    """A compiled expression."""

    root: memoryview
    overloads: dict[int, tuple[str, ...]]
    """By the id of a call: the candidate implementations."""
    offsets: dict[int, int]
    """By id: the offset of the expression in the source, in characters."""
    annotations: dict[int, bytes]
    """By id: the serialised references and types."""


def tree_of(serialised: bytes) -> Tree:
    """Parses the output of `Expression.serialize`. Raises ValueError for anything else."""
    checked = memoryview(b"")
    for number, value in _fields(memoryview(serialised)):
        if number == _ANY_VALUE and isinstance(value, memoryview):
            checked = value
    root = memoryview(b"")
    overloads: dict[int, tuple[str, ...]] = {}
    offsets: dict[int, int] = {}
    annotations: dict[int, bytes] = {}
    for number, value in _fields(checked):
        if not isinstance(value, memoryview):
            continue
        if number == _CHECKED_EXPR:
            root = value
        elif number == _SOURCE_INFO:
            for part, position in _fields(value):
                if part == _POSITIONS and isinstance(position, memoryview):
                    offset = dict(_fields(position))
                    offsets[_number(offset.get(1))] = _number(offset.get(2))
        elif number in (_REFERENCES, _TYPES):
            entry = dict(_fields(value))
            node_id = _number(entry.get(1))
            annotations[node_id] = annotations.get(node_id, b"") + _field(number, value)
            reference = entry.get(2)
            if number == _REFERENCES and isinstance(reference, memoryview):
                names = [text for part, text in _fields(reference) if part == 3]  # noqa: PLR2004
                overloads[node_id] = tuple(_text(name) for name in names)
    if not root:
        raise ValueError("not a serialised expression")
    return Tree(root, overloads, offsets, annotations)


def part_of(tree: Tree, expression: memoryview) -> bytes:
    """Serialises an expression of a tree as `Expression.serialize` would."""
    body = b""
    pending = [expression]
    while pending:
        node = read(pending.pop())
        body += tree.annotations.get(node.id, b"")
        pending += node.inner
    body += _field(_CHECKED_EXPR, expression)
    return _field(_ANY_TYPE_URL, _ANY_TYPE) + _field(_ANY_VALUE, body)


@lru_cache(maxsize=_NODES_KEPT)
def read(expression: memoryview) -> Node:
    """Decodes an expression, but not its operands. Equal bytes are equal nodes."""
    node_id = 0
    kind, body = Kind.NOTHING, memoryview(b"")
    for number, value in _fields(expression):
        if number == 2:  # noqa: PLR2004
            node_id = _number(value)
        elif Kind.CONSTANT <= number <= Kind.COMPREHENSION and isinstance(value, memoryview):
            kind, body = Kind(number), value
    fields = [(number, value) for number, value in _fields(body)]
    if kind is Kind.CONSTANT:
        return Node(kind, node_id, constant=_constant(fields))
    # The fields of a message that hold the operands, in order, and the field that holds a name.
    operands, name = _LAYOUT.get(kind, ((), 0))
    inner: list[memoryview] = []
    for wanted in operands:
        inner += [v for number, v in fields if number == wanted and isinstance(v, memoryview)]
    if kind is Kind.STRUCT:
        inner = [
            v
            for entry in inner
            for part, v in _fields(entry)
            if part in (3, 4) and isinstance(v, memoryview)
        ]
    found = dict(fields)
    tests = kind is Kind.SELECT and bool(_number(found.get(3)))
    element = _text(found.get(1)) if kind is Kind.COMPREHENSION else ""
    has_target = kind is Kind.CALL and 1 in found
    name_of = _text(found.get(name))
    return Node(kind, node_id, name_of, None, tests, tuple(inner), element, has_target)


_LAYOUT: dict[Kind, tuple[tuple[int, ...], int]] = {
    Kind.VARIABLE: ((), 1),
    Kind.SELECT: ((1,), 2),
    Kind.CALL: ((1, 3), 2),
    Kind.LIST: ((1,), 0),
    Kind.STRUCT: ((2,), 1),
    # range, initial value, condition, step, result
    Kind.COMPREHENSION: ((2, 4, 5, 6, 7), 3),
}


def _constant(fields: list[tuple[int, int | memoryview]]) -> Constant:
    # The field that is set is the type: null, bool, int, uint, double, text, bytes.
    for number, value in fields:
        if isinstance(value, memoryview):
            if number == 5:  # noqa: PLR2004
                double: float = struct.unpack("<d", value)[0]
                return double
            return _text(value) if number == 6 else bytes(value)  # noqa: PLR2004
        if number == 2:  # noqa: PLR2004
            return bool(value)
        if number in (3, 4):
            return value - (1 << 64) if number == 3 and value >> 63 else value  # noqa: PLR2004
    return None


def _number(value: int | memoryview | None) -> int:
    return value if isinstance(value, int) else 0


def _text(value: int | memoryview | None) -> str:
    return bytes(value).decode() if isinstance(value, memoryview) else ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields field numbers and values (https://protobuf.dev/programming-guides/encoding)."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        wire_type = tag & 7
        if wire_type == _VARINT:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if wire_type == _BYTES:
            length, position = _varint(message, position)
        elif wire_type in (_FIXED64, _FIXED32):
            length = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type} in a serialised expression")
        yield tag >> 3, message[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value, position
        shift += 7


def _field(number: int, value: bytes | memoryview) -> bytes:
    return _varint_bytes(number << 3 | _BYTES) + _varint_bytes(len(value)) + bytes(value)


def _varint_bytes(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
