"""The programs that conditions are compiled to: the one place of the tests that looks into one."""

from typing import Any

from pdp.decision import Condition, ConditionInvalid
from pdp.decision.conditions import condition_of


def program_of(condition: str | Condition) -> Any:
    """The program of a condition, or of the text of one; fails the test if it is not valid."""
    program = (condition_of(condition) if isinstance(condition, str) else condition)._compiled()
    assert not isinstance(program, ConditionInvalid), program
    return program
