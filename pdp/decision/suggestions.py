"""Suggests a correction of an unknown name in a condition."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)' \(in container ''\)")
_ROOTS: Final = {
    "user": "actor",
    "subject": "actor",
    "principal": "actor",
    "token": "actor",
    "object": "resource",
    "request": "context",
    "ctx": "context",
}
"""The variables' names in other policy languages."""
_FUNCTIONS: Final = (
    *("all", "contains", "duration", "endsWith", "exists", "exists_one", "filter", "getDate"),
    *("getDayOfMonth", "getDayOfWeek", "getFullYear", "getHours", "getMinutes", "getMonth"),
    *("getSeconds", "has", "map", "matches", "size", "startsWith", "string", "timestamp", "double"),
)
_CUTOFF: Final = 0.7
_PREFIX_CHARACTERS_MIN: Final = 3


def with_suggestion(message: str, variables: Iterable[str]) -> str:
    """Adds the closest known name to a message of the CEL compiler about an unknown name. Returns
    any other message unchanged."""
    found = _UNDECLARED.search(message)
    if found is None:
        return message
    problem = f"undeclared reference to {found[1]!r}"
    meant = _closest(found[1], tuple(variables))
    return problem if meant is None else f"{problem}: did you mean {meant}?"


def _closest(name: str, variables: tuple[str, ...]) -> str | None:
    roots = {variable.partition(".")[0] for variable in variables}
    root, _, rest = name.partition(".")
    if root not in roots:
        near = get_close_matches(root.lower(), roots, 1, _CUTOFF)
        meant = near[0] if near else _ROOTS.get(root.lower())
        if meant is None:
            near = get_close_matches(name, (*_FUNCTIONS, *variables), 1, _CUTOFF)
            return near[0] if near else None
        root = meant
    if not rest:
        members = [variable for variable in variables if variable.startswith(f"{root}.")]
        return members[0] if members else root
    first, _, more = rest.partition(".")
    fields = [variable.partition(".")[2] for variable in variables if variable.startswith(root)]
    if not any(fields):
        return f"{root}.{rest}"
    if first not in fields:
        near = get_close_matches(first, fields, 1, _CUTOFF)
        near = near or [field for field in fields if first.endswith(f"_{field}")]
        if len(first) >= _PREFIX_CHARACTERS_MIN:
            near = near or [field for field in fields if field.startswith(first)]
        if not near:
            return f"{root}.attributes.{rest}"
        first = near[0]
    return f"{root}.{first}.{more}" if more else f"{root}.{first}"
