"""A checked CEL expression as a tree that knows which variables each part reads.

Each text is decoded once and memoised. A part that reads only known values can be evaluated by
itself.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from pdp.decision.cel_ast import Constant, Kind, Tree, read
from pdp.decision.conditions import Failed, condition_of, evaluator_of
from pdp.decision.fast_path import Values

_EXPRESSIONS_KEPT: Final = 2_048
_VARIABLES: Final = {"actor": 0, "now": 0, "context": 1, "resource": 1}
"""The first part of a declared variable, and the index of the mapping that holds its value."""
_LISTS: Final = frozenset(("actor.claimed_permissions", "actor.organization_permissions"))


class Expression:
    """An expression and its operands. Immutable except for a compiled program; threads may share
    it."""

    __slots__ = (
        "_part",
        "_program",
        "_tree",
        "constant",
        "element",
        "free",
        "inner",
        "is_known",
        "kind",
        "name",
        "offset",
        "source",
        "tests",
    )

    def __init__(
        self, source: str, tree: Tree, part: bytes, bound: frozenset[str] = frozenset()
    ) -> None:
        node = read(part)
        self.source = source
        """The text of the whole condition."""
        self._tree = tree
        self._part = part
        self._program: Callable[[Values], Any] | None = None
        self.kind = node.kind
        self.name = node.name
        self.constant: Constant = node.constant
        self.tests = node.tests
        self.element = node.element
        """The loop variable of a comprehension; `name` is its accumulator."""
        self.offset = tree.offsets.get(node.id, 0)
        """The offset in the source, in characters; for a call, of its operator."""
        loops = node.kind is Kind.COMPREHENSION
        own = frozenset((node.element, node.name)) if loops else frozenset[str]()
        # The range and the initial value are outside of the loop.
        self.inner = tuple(
            Expression(source, tree, part, bound | own if loops and index > 1 else bound)
            for index, part in enumerate(node.inner)
        )
        free: set[str] = set()
        for index, inner in enumerate(self.inner):
            free |= inner.free - own if loops and index > 1 else inner.free
        is_variable = node.kind is Kind.VARIABLE
        # A name that is neither declared nor bound by a loop is the name of a type.
        if is_variable and (node.name in bound or is_declared(node.name)):
            free.add(node.name)
        self.free: frozenset[str] = frozenset(free)
        """The declared variables, and variables of enclosing loops, that it reads."""
        self.is_known = all(is_declared(name) and not _is_of_row(name) for name in free)
        """Whether its value is independent of the resource and of enclosing loops."""

    def evaluate(self, values: Values) -> Any:
        """The value of a known expression as a Python object, or FAILED."""
        if self.kind is Kind.CONSTANT:
            return self.constant
        if self.kind is Kind.VARIABLE and self.name != "now" and is_declared(self.name):
            return _variable(self.name, values)
        if self.kind is Kind.SELECT and not self.tests:
            base = self.inner[0]
            if base.kind is Kind.VARIABLE and is_declared(base.name):
                value = _variable(base.name, values)
                # The runtime returns a bound value, or the value of its key, unchanged.
                return value.get(self.name, Failed.FAILED) if isinstance(value, Mapping) else value
        if self._program is None:
            self._program = evaluator_of(self._tree, self._part)
        return self._program(values)


@lru_cache(maxsize=_EXPRESSIONS_KEPT)
def expression_of(source: str) -> Expression | None:
    """The expression of a condition; None: the text is not a condition."""
    opened = condition_of(source).opened()
    return None if opened is None else Expression(source, opened.tree, opened.tree.root)


def is_declared(name: str) -> bool:
    """Whether conditions may read a variable of this name."""
    return name.partition(".")[0] in _VARIABLES


def _is_of_row(name: str) -> bool:
    return name.startswith("resource.") and name != "resource.type"


def _variable(name: str, values: Values) -> Any:
    value = values[_VARIABLES[name.partition(".")[0]]].get(name)
    if value is None:
        return Failed.FAILED
    return list(value) if name in _LISTS else value
