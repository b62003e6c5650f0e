"""The serialised form of a condition, read and written through generated messages."""

import pytest
from google.protobuf.any_pb2 import Any

from pdp.decision import cel_expr_pb2 as pb
from pdp.decision.cel_ast import Kind, part_of, read, tree_of
from tests.kit.decision.programs import program_of


@pytest.mark.parametrize(
    "source",
    [
        "resource.attributes.owner == actor.id && !(context.size > 1.5 || context.n in [1, -2])",
        "resource.attributes.tags.exists(tag, tag.startsWith('x')) ? has(context.a) : now == now",
        "{'a': null, 'b': b'\\x00\\xff'}['a'] == null",
    ],
)
def test_the_whole_expression_is_written_as_the_runtime_wrote_it(source: str) -> None:
    program = program_of(source)
    written = Any.FromString(part_of(program.tree, program.tree.root))
    runtime = Any.FromString(program.expression.serialize())
    assert written.type_url == runtime.type_url
    ours, theirs = (pb.CheckedExpr.FromString(each.value) for each in (written, runtime))
    assert ours.expr == theirs.expr
    assert ours.type_map == theirs.type_map
    assert ours.reference_map == theirs.reference_map


def test_an_expression_may_nest_deeper_than_a_message_may() -> None:
    """The runtime accepts it. As nested messages it would have 104 levels; the parser takes 100."""
    condition = "actor.id == 'a'"
    for _ in range(25):
        condition = f"actor.claimed_permissions.exists(p, {condition})"
    depth, node = 0, read(program_of(condition).tree.root)
    while node.kind is Kind.COMPREHENSION:
        depth, node = depth + 1, read(read(node.inner[3]).inner[1])
    assert (depth, node.name) == (25, "_==_")


def test_bytes_that_are_no_checked_expression_are_refused() -> None:
    with pytest.raises(ValueError, match="not a serialised expression"):
        tree_of(Any(type_url="x").SerializeToString())
