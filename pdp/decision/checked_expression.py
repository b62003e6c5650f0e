"""Reads what a compiled CEL expression refers to, from its serialised form.

The format is `cel.expr.CheckedExpr` (https://github.com/google/cel-spec, proto/cel/expr/checked.proto
and syntax.proto), which the runtime writes inside a `google.protobuf.Any`. Only the few fields that
matter here are read, so no generated code is needed. Unknown fields are walked over.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_ANY_VALUE = 2
_CHECKED_EXPR = 4
_CONST, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = 3, 4, 5, 6, 7, 8, 9
_STRING_CONSTANT = 6
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class References:
    """What an expression refers to."""

    keys: dict[str, frozenset[str] | None]
    """Variable (or local name) -> the literal keys that are read of it; None: any use of the
    whole value."""
    patterns: tuple[str | None, ...]
    """The pattern of each call of `matches`; None: one that is not a literal."""


def references(serialised: bytes) -> References:
    """Walks the syntax tree. Iterative: nesting cannot exhaust the stack."""
    keys: dict[str, frozenset[str] | None] = {}
    patterns: list[str | None] = []
    checked = _field(serialised, _ANY_VALUE)
    pending = [_field(checked, _CHECKED_EXPR)]
    while pending:
        kind, body = _node(pending.pop())
        if kind == _IDENT:
            keys[_text(body, 1)] = None
        elif kind == _SELECT:
            operand = _field(body, 1)
            if not _read_key(keys, operand, _text(body, 2)):
                pending.append(operand)
        elif kind == _CALL:
            function = _text(body, 2)
            arguments = [value for number, value in _messages(body) if number in (1, 3)]
            if function == "matches":
                patterns.append(_literal(arguments[-1]))
            if function == "_[_]":
                key = _literal(arguments[1])
                if key is not None and _read_key(keys, arguments[0], key):
                    continue
            pending += arguments
        elif kind == _LIST:
            pending += [value for number, value in _messages(body) if number == 1]
        elif kind == _STRUCT:
            for number, entry in _messages(body):
                if number == 2:  # noqa: PLR2004  # entries
                    pending += [value for part, value in _messages(entry) if part in (3, 4)]
        elif kind == _COMPREHENSION:
            # 2 range, 4 initial, 5 condition, 6 step, 7 result; the others are names.
            pending += [value for number, value in _messages(body) if number in (2, 4, 5, 6, 7)]
    return References(keys, tuple(patterns))


def _read_key(keys: dict[str, frozenset[str] | None], operand: bytes, key: str) -> bool:
    """Notes `variable.key` where the operand is a plain variable."""
    kind, body = _node(operand)
    if kind != _IDENT:
        return False
    name = _text(body, 1)
    known = keys.get(name, frozenset())
    keys[name] = None if known is None else known | {key}
    return True


def _literal(expression: bytes) -> str | None:
    kind, body = _node(expression)
    if kind == _CONST:
        for number, value in _messages(body):
            if number == _STRING_CONSTANT:
                return value.decode()
    return None


def _node(expression: bytes) -> tuple[int, bytes]:
    for number, value in _messages(expression):
        if _CONST <= number <= _COMPREHENSION:
            return number, value
    return 0, b""


def _field(message: bytes, wanted: int) -> bytes:
    for number, value in _messages(message):
        if number == wanted:
            return value
    return b""


def _text(message: bytes, wanted: int) -> str:
    return _field(message, wanted).decode()


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message (https://protobuf.dev/programming-guides/encoding)."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        wire_type = tag & 7
        if wire_type == _BYTES:
            length, position = _varint(data, position)
            yield tag >> 3, data[position : position + length]
            position += length
        elif wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type} in a serialised expression")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value, position
        shift += 7
