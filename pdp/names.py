"""The grammar of names. Every name is compared byte for byte: nothing is trimmed or folded."""

import re

from pdp import limits
from pdp.errors import Violation

_TYPE = r"[a-z][a-z0-9_.-]*"
_RESOURCE_TYPE = re.compile(_TYPE)
_PERMISSION = re.compile(rf"{_TYPE}:{_TYPE}")
_PERMISSION_PATTERN = re.compile(rf"{_TYPE}:(?:{_TYPE}|\*)|\*")
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*")
_RULE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:*/-]*")
# C0, DEL and C1 would forge lines in a log; a lone surrogate has no UTF-8 form.
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NOT_PROSE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def check_permission(name: str, field: str) -> Violation | None:
    """`resource-type:action`, at most `NAME_CHARACTERS_MAX` characters."""
    return _check(_PERMISSION, name, field, "a permission such as course:edit")


def check_permission_pattern(name: str, field: str) -> Violation | None:
    """What a rule may name: a permission, `type:*`, or `*`."""
    expected = "a permission such as course:edit, or course:*, or *"
    return _check(_PERMISSION_PATTERN, name, field, expected)


def check_resource_type(name: str, field: str) -> Violation | None:
    """A lower-case word, at most `NAME_CHARACTERS_MAX` characters."""
    return _check(_RESOURCE_TYPE, name, field, "a lower-case resource type such as course")


def check_role(name: str, field: str) -> Violation | None:
    """A letter, then letters, digits and `_.:-`, at most `NAME_CHARACTERS_MAX` characters."""
    return _check(_ROLE, name, field, "a role name such as INSTRUCTOR")


def check_rule_id(name: str, field: str) -> Violation | None:
    """A letter or digit, then letters, digits and `_.:*/-`, at most `IDENTIFIER_CHARACTERS_MAX`."""
    expected = "an id of letters, digits and _.:*/-"
    return _check(_RULE_ID, name, field, expected, limits.IDENTIFIER_CHARACTERS_MAX)


def check_identifier(value: str, field: str) -> Violation | None:
    """An id that somebody else chose: 1 to `IDENTIFIER_CHARACTERS_MAX` characters of any text
    without control characters."""
    if not value:
        return Violation(field, "must not be empty")
    if len(value) > limits.IDENTIFIER_CHARACTERS_MAX:
        return _too_long(value, field, limits.IDENTIFIER_CHARACTERS_MAX)
    # Nearly every id is printable, which is quicker to see.
    if not value.isprintable() and _NOT_TEXT.search(value):
        return Violation(field, "must not contain control characters or lone surrogates")
    return None


def check_description(value: str, field: str) -> Violation | None:
    """Text for people, also empty; tabs and line feeds are the only control characters."""
    if len(value) > limits.DESCRIPTION_CHARACTERS_MAX:
        return _too_long(value, field, limits.DESCRIPTION_CHARACTERS_MAX)
    if _NOT_PROSE.search(value):
        return Violation(field, "must not contain control characters or lone surrogates")
    return None


def check_reason(value: str, field: str) -> Violation | None:
    """Why somebody changes something, also empty: one line, at most `REASON_CHARACTERS_MAX`."""
    if len(value) > limits.REASON_CHARACTERS_MAX:
        return _too_long(value, field, limits.REASON_CHARACTERS_MAX)
    # Also line and paragraph separators, which some viewers show as line breaks.
    if _NOT_TEXT.search(value) or "\u2028" in value or "\u2029" in value:
        return Violation(field, "must be one line, without control characters or lone surrogates")
    return None


def _check(
    grammar: re.Pattern[str],
    name: str,
    field: str,
    expected: str,
    characters_max: int = limits.NAME_CHARACTERS_MAX,
) -> Violation | None:
    if len(name) > characters_max:
        return _too_long(name, field, characters_max)
    # fullmatch, because "$" would let a trailing line feed through.
    if not grammar.fullmatch(name):
        return Violation(field, f"must be {expected}")
    return None


def _too_long(value: str, field: str, characters_max: int) -> Violation:
    return Violation(field, f"has {len(value)} characters, at most {characters_max} are allowed")
