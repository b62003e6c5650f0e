"""The expressions that decided the result of a condition, each with its value."""

from collections.abc import Iterator
from typing import Any, Final

from pdp.decision.cel_ast import Kind, Node, read
from pdp.decision.cel_text import text_of, value_text, written
from pdp.decision.conditions import Condition, Parts
from pdp.decision.explanation import Step, StepKind, StepStatus
from pdp.decision.fast_path import Values
from pdp.model import Reason

_DEPTH_MAX: Final = 12
_JUNCTIONS: Final = {"_&&_": False, "_||_": True}
"""Each operator with the value of an operand that settles the result."""


def condition_steps(
    condition: Condition, values: Values, outcome: bool | Reason
) -> tuple[Step, ...]:
    """The condition as a step, with the deciding expressions as children. `outcome` is the result
    of `Condition.evaluate`."""
    parts = condition.parts(values)
    if parts is None:
        text = f"{condition.source}: is not a condition of this version"
        return (Step(StepKind.EXPRESSION, StepStatus.FAILED, text),)
    return (_Describer(parts, condition.source).step(parts.tree.root, _DEPTH_MAX, outcome),)


def branches_of(condition: Condition, values: Values = ({}, {})) -> list[tuple[str, Any]]:
    """The operands of the logical operators as text, each with its value, or with the Reason why it
    has none. A condition without such operators yields itself."""
    parts = condition.parts(values)
    if parts is None:
        return []
    tree = parts.tree
    return [
        (text_of(tree, condition.source, part), parts.evaluate(part)) for part in _joined(tree.root)
    ]


def _joined(expression: bytes) -> Iterator[bytes]:
    node = read(expression)
    if node.kind is Kind.CALL and (node.name in _JUNCTIONS or node.name in ("!_", "_?_:_")):
        for part in node.inner:
            yield from _joined(part)
    else:
        yield expression


class _Describer:
    """Describes the expressions of a condition."""

    def __init__(self, parts: Parts, source: str) -> None:
        self._parts = parts
        self._source = source

    def step(self, expression: bytes, depth: int, value: Any) -> Step:
        node = read(expression)
        decisive = list(self._decisive(node, value)) if depth else []
        if decisive:
            result = "cannot be evaluated" if isinstance(value, Reason) else _result(value)
            text = f"{self._text(expression)}: {result}"
        else:
            text = self._leaf(expression, node, value)
        children = tuple(self.step(part, depth - 1, result) for part, result in decisive)
        return Step(StepKind.EXPRESSION, _status(value), text, children=children)

    def _decisive(self, node: Node, value: Any) -> Iterator[tuple[bytes, Any]]:
        """The operands of a logical operator that settled its value."""
        if node.kind is not Kind.CALL:
            return
        if node.name in _JUNCTIONS:
            for part in _operands(node):
                result = self._parts.evaluate(part)
                if result is value or (isinstance(value, Reason) and isinstance(result, Reason)):
                    yield part, result
        elif node.name == "!_":
            yield node.inner[0], self._parts.evaluate(node.inner[0])
        elif node.name == "_?_:_":
            condition = self._parts.evaluate(node.inner[0])
            yield node.inner[0], condition
            if isinstance(condition, bool):
                chosen = node.inner[1 if condition else 2]
                yield chosen, self._parts.evaluate(chosen)

    def _leaf(self, expression: bytes, node: Node, value: Any) -> str:
        text = self._text(expression)
        if node.kind is Kind.CALL and node.inner:
            operands = {part: self._parts.evaluate(part) for part in node.inner}
            absent = [
                self._text(part) for part, result in operands.items() if isinstance(result, Reason)
            ]
            if absent:
                return f"{text}: {', '.join(absent)} {_result(operands_reason(operands))}"
            shown = written(node, lambda part: value_text(operands[part]), lambda _: "...")
            return f"{text}: {_result(value)}" if shown == text else f"{text}: {shown} {_is(value)}"
        if node.kind is Kind.COMPREHENSION:
            over = self._parts.evaluate(node.inner[0])
            shown = _result(over) if isinstance(over, Reason) else f"is {value_text(over)}"
            return f"{text}: {_result(value)}; {self._text(node.inner[0])} {shown}"
        return f"{text}: {_result(value)}"

    def _text(self, expression: bytes) -> str:
        return text_of(self._parts.tree, self._source, expression)


def operands_reason(operands: dict[bytes, Any]) -> Reason:
    """Why the first operand without a value has none."""
    return next(result for result in operands.values() if isinstance(result, Reason))


def _operands(node: Node) -> Iterator[bytes]:
    """The operands of a chain of equal operators: `a && b && c` has three."""
    for part in node.inner:
        inner = read(part)
        if inner.kind is Kind.CALL and inner.name == node.name:
            yield from _operands(inner)
        else:
            yield part


def _result(value: Any) -> str:
    if value is Reason.ATTRIBUTE_MISSING:
        return "is absent"
    if isinstance(value, Reason):
        return "cannot be evaluated"
    return value_text(value)


def _is(value: Any) -> str:
    return _result(value) if isinstance(value, Reason) else f"is {value_text(value)}"


def _status(value: Any) -> StepStatus:
    if value is Reason.ATTRIBUTE_MISSING:
        return StepStatus.MISSING
    if isinstance(value, Reason):
        return StepStatus.FAILED
    return StepStatus.NOT_MET if value is False else StepStatus.MET
