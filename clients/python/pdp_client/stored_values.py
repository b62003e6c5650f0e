"""Constants and numbers as SQL databases store and compare them, for all adapters."""

from typing import Final
from uuid import UUID

from pdp_filters import TextTest

INT64: Final = range(-(2**63), 2**63)
"""The values of the widest integer column."""


def stored_integer(text: str) -> int | None:
    """The integer of which a text is the form; None: no column holds it."""
    try:
        value = int(text)
    except ValueError:
        return None
    return value if str(value) == text and value in INT64 else None


def stored_uuid(text: str) -> UUID | None:
    """The UUID of which a text is the form; None: no column holds it."""
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text else None


def like_pattern(test: TextTest, text: str) -> str:
    """The pattern of LIKE for a test; a backslash escapes."""
    escaped = text
    for character in ("\\", "%", "_"):
        escaped = escaped.replace(character, "\\" + character)
    before = "" if test is TextTest.PREFIX else "%"
    after = "" if test is TextTest.SUFFIX else "%"
    return before + escaped + after


def double_of_decimal(number: str) -> str:
    """SQL of PostgreSQL: a decimal as a double; NULL if no double holds it. A cast alone would fail
    the whole statement."""
    return (
        f"CASE WHEN abs({number}) < 2.4703282292062328e-324 THEN 0"
        f" WHEN abs({number}) < 1.797693134862315807e308"
        f" THEN CAST({number} AS DOUBLE PRECISION) END"
    )
