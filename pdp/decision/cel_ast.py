"""Reads a compiled CEL expression from its serialised form.

The runtime writes a `cel.expr.CheckedExpr` inside a `google.protobuf.Any`. `cel_expr.proto` has the
part that is read. Code that walks a tree must not recurse: a text of 4,096 characters can nest
thousands of levels.
"""

import enum
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from google.protobuf.any_pb2 import Any

from pdp.decision import cel_expr_pb2 as pb

_TYPE_URL: Final = "type.googleapis.com/cel.expr.CheckedExpr"
_NODES_KEPT: Final = 8_192


class Kind(enum.Enum):
    """The kind of an expression."""

    NOTHING = enum.auto()
    CONSTANT = enum.auto()
    VARIABLE = enum.auto()
    SELECT = enum.auto()
    CALL = enum.auto()
    LIST = enum.auto()
    STRUCT = enum.auto()
    COMPREHENSION = enum.auto()


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
    inner: tuple[bytes, ...] = ()
    """The operands; the target of a call comes first."""
    element: str = ""
    """The variable that a comprehension binds to each element of its range."""
    has_target: bool = False
    """Whether a call is written `first.name(...)`."""


class Tree(NamedTuple):
    """A compiled expression."""

    root: bytes
    overloads: Mapping[int, tuple[str, ...]]
    """By the id of a call: the candidate implementations."""
    offsets: Mapping[int, int]
    """By id: the offset of the expression in the source, in characters."""
    references: Mapping[int, bytes]
    """By id: the serialised reference."""
    types: Mapping[int, bytes]
    """By id: the serialised type."""


def tree_of(serialised: bytes) -> Tree:
    """Parses the output of `Expression.serialize`.

    Raises:
        ValueError: It is something else.
        google.protobuf.message.DecodeError: It is no message at all.
    """
    checked = pb.CheckedExpr.FromString(Any.FromString(serialised).value)
    if not checked.expr:
        raise ValueError("not a serialised expression")
    references = dict(checked.reference_map)
    overloads = {
        node_id: tuple(pb.Reference.FromString(reference).overload_id)
        for node_id, reference in references.items()
    }
    offsets = dict(checked.source_info.positions)
    return Tree(checked.expr, overloads, offsets, references, dict(checked.type_map))


def part_of(tree: Tree, expression: bytes) -> bytes:
    """Serialises an expression of a tree as `Expression.serialize` would."""
    part = pb.CheckedExpr(expr=expression)
    pending = [expression]
    while pending:
        node = read(pending.pop())
        if node.id in tree.references:
            part.reference_map[node.id] = tree.references[node.id]
        if node.id in tree.types:
            part.type_map[node.id] = tree.types[node.id]
        pending += node.inner
    return Any(type_url=_TYPE_URL, value=part.SerializeToString()).SerializeToString()


@lru_cache(maxsize=_NODES_KEPT)
def read(expression: bytes) -> Node:  # noqa: PLR0911  # a return for each kind
    """Decodes an expression, but not its operands. Equal bytes are equal nodes."""
    message = pb.Expr.FromString(expression)
    match message.WhichOneof("expr_kind"):
        case "const_expr":
            return Node(Kind.CONSTANT, message.id, constant=_constant(message.const_expr))
        case "ident_expr":
            return Node(Kind.VARIABLE, message.id, message.ident_expr.name)
        case "select_expr":
            select = message.select_expr
            return Node(
                Kind.SELECT,
                message.id,
                select.field,
                tests=select.test_only,
                inner=(select.operand,),
            )
        case "call_expr":
            call = message.call_expr
            has_target = call.HasField("target")
            inner = (call.target, *call.args) if has_target else tuple(call.args)
            return Node(Kind.CALL, message.id, call.function, inner=inner, has_target=has_target)
        case "list_expr":
            return Node(Kind.LIST, message.id, inner=tuple(message.list_expr.elements))
        case "struct_expr":
            struct = message.struct_expr
            pairs = ((entry.map_key, entry.value) for entry in struct.entries)
            inner = tuple(part for pair in pairs for part in pair if part)
            return Node(Kind.STRUCT, message.id, struct.message_name, inner=inner)
        case "comprehension_expr":
            loop = message.comprehension_expr
            return Node(
                Kind.COMPREHENSION,
                message.id,
                loop.accu_var,
                inner=(
                    loop.iter_range,
                    loop.accu_init,
                    loop.loop_condition,
                    loop.loop_step,
                    loop.result,
                ),
                element=loop.iter_var,
            )
        case _:
            return Node(Kind.NOTHING, message.id)


def _constant(message: pb.Constant) -> Constant:
    kind = message.WhichOneof("constant_kind")
    if kind is None or kind == "null_value":
        return None
    value: Constant = getattr(message, kind)
    return value
