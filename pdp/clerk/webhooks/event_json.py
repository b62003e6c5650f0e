"""The JSON of an event: every part that is read has exactly one meaning.

A user writes some texts of an event (names, `unsafe_metadata`). If such a text could make the whole
event invalid, as it would with `strict_json`, the user could hide their own ban. So an ambiguous
value becomes UNREADABLE at its place, and only a reader of that place fails.
"""

import enum
import json
import math
import re
from typing import Any, NoReturn

DEPTH_MAX = 64
"""Levels; deeper values are left out. Attributes may have far fewer."""
_INTEGER_DIGITS_MAX = 308
"""An integer of so many digits is still within a double."""

# Also matches a string without an end; possessive, so it takes linear time for any text.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.?)*+"?|[][{}]', re.DOTALL)


class Unreadable(enum.Enum):
    """Replaces an object with duplicate keys, and a number beyond a double."""

    UNREADABLE = "unreadable"


UNREADABLE = Unreadable.UNREADABLE


def parse_event_json(text: bytes) -> Any:
    """Parses a JSON text. Strings may contain NUL and lone surrogates.

    Raises:
        ValueError: The text is not JSON (NaN is not).
    """
    try:
        return _DECODER.decode(_without_depths(text.decode("utf-8")))
    except ValueError:
        raise ValueError("not JSON") from None


def _without_depths(text: str) -> str:
    """The text with null for each value below `DEPTH_MAX` levels, because the parser recurses."""
    if text.count("{") + text.count("[") <= DEPTH_MAX:
        return text
    kept = []
    depth = kept_to = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[0] in "{[":
            depth += 1
            if depth == DEPTH_MAX + 1:
                kept += [text[kept_to : found.start()], "null"]
                kept_to = len(text)
        elif found[0] in "}]":
            if depth == DEPTH_MAX + 1:
                kept_to = found.end()
            depth -= 1
    return "".join([*kept, text[kept_to:]])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Unreadable:
    value = dict(pairs)
    return value if len(value) == len(pairs) else UNREADABLE


def _float(text: str) -> float | Unreadable:
    value = float(text)
    return value if math.isfinite(value) else UNREADABLE


def _integer(text: str) -> int | Unreadable:
    return int(text) if len(text) <= _INTEGER_DIGITS_MAX else UNREADABLE


def _constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
)
