"""The JSON of an event: one reading of every part that is read.

A user writes parts of what Clerk says of them (names, `unsafe_metadata`). If such a text could make
the whole event unreadable, as it would with `identity.json_strict`, the user could keep their own
ban from being seen. So what has no single reading is UNREADABLE in its own place, where only who
reads it there stumbles.
"""

import enum
import json
import math
import re
from typing import Any, NoReturn

DEPTH_MAX = 64
"""Levels; what lies deeper is left out. Attributes may have far fewer."""
_INTEGER_DIGITS_MAX = 308
"""An integer of so many digits is still within a double."""

# Strings also where one never ends, and possessive: linear time, whatever the text.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.?)*+"?|[][{}]', re.DOTALL)


class Unreadable(enum.Enum):
    """Stands for an object with duplicate keys and for a number past a double."""

    UNREADABLE = "unreadable"


UNREADABLE = Unreadable.UNREADABLE


def parse_event_json(text: bytes) -> Any:
    """A JSON text as a value. Texts may hold NUL and lone surrogates. Raises ValueError where it is
    not JSON (as NaN is not)."""
    try:
        return _DECODER.decode(_without_depths(text.decode("utf-8")))
    except ValueError:
        raise ValueError("not JSON") from None


def _without_depths(text: str) -> str:
    """With null for every value below `DEPTH_MAX` levels: the parser recurses."""
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
