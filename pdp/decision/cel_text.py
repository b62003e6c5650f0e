"""Writes a compiled CEL expression as text, in the form that people write.

The result is for people. It compiles to the same expression, except that a text past
`VALUE_CHARACTERS_MAX` is shortened.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pdp.decision.cel_ast import Kind, Node, Tree, read

VALUE_CHARACTERS_MAX: Final = 120
_BINARY: Final = {
    name: index
    for index, names in enumerate(
        (
            ("_||_",),
            ("_&&_",),
            ("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in"),
            ("_+_", "_-_"),
            ("_*_", "_/_", "_%_"),
        )
    )
    for name in names
}
"""Binary operators with their precedence; a higher number binds more tightly."""
_SYMBOLS: Final = {"@in": "in"}
_LOOP: Final = re.compile(r"\.\s*([a-z_A-Z]+)\s*$")


def text_of(tree: Tree, source: str, expression: bytes) -> str:
    """The text of an expression of a tree. `source` is the text that was compiled."""

    def text(inner: bytes) -> str:
        return written(read(inner), text, lambda node: _loop_text(tree, source, node, text))

    return text(expression)


def written(  # noqa: PLR0911  # a line for each kind
    node: Node, operand: Callable[[bytes], str], loop: Callable[[Node], str]
) -> str:
    """Writes an expression; `operand` writes its operands, `loop` writes comprehensions."""
    match node.kind:
        case Kind.CONSTANT:
            return value_text(node.constant)
        case Kind.VARIABLE:
            return node.name
        case Kind.SELECT:
            selected = f"{operand(node.inner[0])}.{node.name}"
            return f"has({selected})" if node.tests else selected
        case Kind.CALL:
            return _call_text(node, operand)
        case Kind.LIST:
            return f"[{', '.join(map(operand, node.inner))}]"
        case Kind.STRUCT:
            parts = [operand(inner) for inner in node.inner]
            pairs = zip(parts[::2], parts[1::2], strict=False)
            return "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        case _:
            return loop(node)


def _call_text(node: Node, operand: Callable[[bytes], str]) -> str:
    name, inner = node.name, node.inner
    precedence = _BINARY.get(name)
    if precedence is not None:
        symbol = _SYMBOLS.get(name) or name.strip("_")
        left = _parenthesised(inner[0], precedence, operand)
        right = _parenthesised(inner[1], precedence + 1, operand)
        return f"{left} {symbol} {right}"
    if name in ("!_", "-_"):
        return name[0] + _parenthesised(inner[0], len(_BINARY), operand)
    if name == "_[_]":
        return f"{operand(inner[0])}[{operand(inner[1])}]"
    if name == "_?_:_":
        condition, yes, no = (_parenthesised(part, 0, operand) for part in inner)
        return f"{condition} ? {yes} : {no}"
    first, *arguments = (operand(part) for part in inner)
    if node.has_target:
        return f"{first}.{name}({', '.join(arguments)})"
    return f"{name}({', '.join((first, *arguments))})"


def _parenthesised(expression: bytes, precedence: int, operand: Callable[[bytes], str]) -> str:
    node = read(expression)
    text = operand(expression)
    if node.kind is not Kind.CALL:
        return text
    binds = -1 if node.name == "_?_:_" else _BINARY.get(node.name, precedence)
    return f"({text})" if binds < precedence else text


def _loop_text(tree: Tree, source: str, node: Node, text: Callable[[bytes], str]) -> str:
    """A macro such as `tags.exists(t, t == "x")`: its range, then the source up to the closing
    parenthesis. Nobody writes the expanded form."""
    opening = tree.offsets.get(node.id, 0)
    name = _LOOP.search(source[:opening])
    if name is None or source[opening : opening + 1] != "(":
        return "..."
    return f"{text(node.inner[0])}.{name[1]}{source[opening : _closing(source, opening)]}"


def _closing(source: str, opening: int) -> int:
    """The offset after the parenthesis that closes the one at `opening`."""
    depth, quote, position = 0, "", opening
    while position < len(source):
        character = source[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in "'\"":
            quote = character
        elif character in "()":
            depth += 1 if character == "(" else -1
            if depth == 0:
                return position + 1
        position += 1
    return len(source)


def value_text(value: Any) -> str:  # noqa: PLR0911  # a line for each type
    """A value as CEL writes it, shortened to about VALUE_CHARACTERS_MAX characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, str):
        return _shortened(json.dumps(value, ensure_ascii=False))
    if isinstance(value, datetime):
        return f'timestamp("{value.astimezone(UTC).isoformat().replace("+00:00", "Z")}")'
    if isinstance(value, timedelta):
        return f'duration("{value.total_seconds():g}s")'
    if isinstance(value, bytes | bytearray):
        return _shortened("b" + json.dumps(bytes(value).decode("latin-1")))
    if isinstance(value, Mapping):
        return _shortened(
            "{" + ", ".join(f"{value_text(k)}: {value_text(v)}" for k, v in value.items()) + "}"
        )
    if isinstance(value, Sequence):
        return _shortened(f"[{', '.join(map(value_text, value))}]")
    return _shortened(str(value))


def _shortened(text: str) -> str:
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}..."
