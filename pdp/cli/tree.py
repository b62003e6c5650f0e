"""An explanation's tree as lines of text."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pdpapi.v1.explain_service_pb2 import ExplanationStep

    from pdp.decision import Step

    AnyStep = Step | ExplanationStep

_INDENTS: Final = (("├─ ", "│  "), ("└─ ", "   "))
_MARKED: Final = ("GRANT", "RULE")


def tree_lines(step: "AnyStep") -> Iterator[str]:
    """A line for each step. Grants and rules begin with what they came to."""
    kind, status = _names(step)
    mark = f"[{status.lower().replace('_', ' ')}] " if kind in _MARKED and status != "NONE" else ""
    yield mark + step.text
    children: Sequence[AnyStep] = step.children
    for index, child in enumerate(children):
        first, rest = _INDENTS[index == len(children) - 1]
        for number, line in enumerate(tree_lines(child)):
            yield (rest if number else first) + line


def _names(step: "AnyStep") -> tuple[str, str]:
    """Kind and status, of a message without its prefixes."""
    if not hasattr(step, "DESCRIPTOR"):
        return step.kind.name, step.status.name
    from pdpapi.v1.explain_service_pb2 import ExplanationStep

    kind = ExplanationStep.Kind.Name(step.kind)  # type: ignore[arg-type]
    status = ExplanationStep.Status.Name(step.status)  # type: ignore[arg-type]
    return kind.removeprefix("KIND_"), status.removeprefix("STATUS_")
