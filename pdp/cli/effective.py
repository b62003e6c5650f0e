"""`pdp diff --effective`: which answers change from one policy to another."""

import time
from typing import TYPE_CHECKING, Any

from pdp.cli.output import emit_json, say

if TYPE_CHECKING:
    from pdp.document import PolicyDocument
    from pdp.impact import Cell, Example, Impact


def compare_answers(old: "PolicyDocument", new: "PolicyDocument", *, as_json: bool) -> bool:
    """Prints which answers change, for all stored users, permissions and resources. Returns whether
    some do, or may: those that were not compared."""
    from pdp.clock import wall_clock
    from pdp.document import World
    from pdp.impact import effective_differences

    began = time.monotonic()
    worlds = World(old.over(new)), World(new.over(old))
    impact = effective_differences(*worlds, wall_clock())
    if as_json:
        emit_json(_fields(impact), indent=2)
    else:
        _show(impact, time.monotonic() - began)
    return bool(impact.cells or impact.not_compared)


def _show(impact: "Impact", seconds: float) -> None:
    for cell in impact.cells:
        say(
            f"{cell.permission} on {cell.resource_type}: {_was(cell)} -> {cell.effect.value}: "
            f"{cell.users} users, {cell.answers} answers"
        )
        for example in cell.examples:
            say(f"  {_example_text(example)}")
    for permission, answers in impact.not_compared.items():
        say(f"{permission}: {answers} answers were not compared: too many decisions")
    if impact.assumed:
        say(f"taken as absent, because it is not stored: {', '.join(sorted(impact.assumed))}")
    answers = sum(cell.answers for cell in impact.cells)
    say(
        f"{answers} answers change, of {impact.users} users and {impact.permissions} permissions "
        f"({seconds:.2f} s)"
    )


def _was(cell: "Cell") -> str:
    from pdp.model import Effect

    return "deny" if cell.effect is Effect.ALLOW else "allow"


def _example_text(example: "Example") -> str:
    resource = example.resource
    what = "no resource" if resource is None else f"{resource.type}:{resource.id}"
    where = "" if example.organization_id is None else f" in {example.organization_id}"
    steps = (
        decision.reason.name + (f" by {decision.rule_id}" if decision.rule_id is not None else "")
        for decision in (example.before, example.after)
    )
    return f"{example.user_id}{where}, {what}: {' -> '.join(steps)}"


def _fields(impact: "Impact") -> dict[str, Any]:
    return {
        "users": impact.users,
        "permissions": impact.permissions,
        "changes": [
            {
                "permission": cell.permission,
                "resource_type": cell.resource_type,
                "before": _was(cell),
                "after": cell.effect.value,
                "users": cell.users,
                "answers": cell.answers,
                "examples": [
                    {
                        "user": example.user_id,
                        "organization": example.organization_id,
                        "resource": example.resource
                        and f"{example.resource.type}:{example.resource.id}",
                        "before": {
                            "reason": example.before.reason.name,
                            "rule": example.before.rule_id,
                        },
                        "after": {
                            "reason": example.after.reason.name,
                            "rule": example.after.rule_id,
                        },
                    }
                    for example in cell.examples
                ],
            }
            for cell in impact.cells
        ],
        "not_compared": impact.not_compared,
        "assumed_absent": sorted(impact.assumed),
    }
