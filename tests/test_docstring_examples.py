"""The examples in docstrings use names and methods that exist."""

import ast
import builtins
import inspect
import textwrap

import pdp_client
import pytest
from pdp_client import cache

from pdp import authorizer

GIVEN = {"token", "key", "request", "ask"}
"""Names that a reader has."""


def example_of(subject: type) -> ast.Module:
    documentation = inspect.getdoc(subject) or ""
    return ast.parse(textwrap.dedent(documentation.partition("Example::\n")[2]))


@pytest.mark.parametrize(
    ("subject", "variable", "names"),
    [
        (authorizer.Authorizer, "authorizer", vars(authorizer)),
        (cache.DecisionCache, "cache", {**vars(pdp_client), **vars(cache)}),
        (pdp_client.Guard, "guard", vars(pdp_client)),
    ],
)
def test_an_example_uses_only_names_that_exist(
    subject: type, variable: str, names: dict[str, object]
) -> None:
    nodes = list(ast.walk(example_of(subject)))
    used = [node for node in nodes if isinstance(node, ast.Name)]
    assigned = {name.id for name in used if isinstance(name.ctx, ast.Store)}
    assigned |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    assert {name.id for name in used} - assigned - GIVEN - names.keys() - vars(
        builtins
    ).keys() == set()
    called = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == variable
    }
    assert called
    assert all(hasattr(subject, name) for name in called)
