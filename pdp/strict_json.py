"""A strict JSON parser for security decisions: everything that is read has exactly one meaning.

Ambiguous are duplicate keys (two readers could see two values), numbers beyond a double (1e400),
and nesting deeper than a limit (checked before the recursive parser sees the text).
`parse_object` refuses a text that contains one of them, or a lone surrogate. `parse_tolerant`
marks them, for texts of which an attacker writes a part. Both refuse NaN, Infinity and bytes that
are not UTF-8.
"""

import enum
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

# Also matches a string without an end. Possessive: the text is untrusted, so it must be linear.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.?)*+"?|[][{}]', re.DOTALL)
_INTEGER_DIGITS_MAX = 308
"""An integer of so many digits is still within a double."""


class NotStrictJson(ValueError):
    """The text is not accepted as JSON. The message quotes nothing of it."""


class Unreadable(enum.Enum):
    """Replaces an object with duplicate keys, and a number beyond a double."""

    UNREADABLE = "unreadable"


UNREADABLE = Unreadable.UNREADABLE


def parse_object(text: bytes, *, depth_max: int) -> dict[str, Any]:
    """Parses a JSON object. Integers stay `int`, so that 2 and 2.0 differ.

    Args:
        text: UTF-8.
        depth_max: The deepest accepted nesting.

    Raises:
        NotStrictJson: The text is not accepted.
    """
    try:
        value = _parse(text.decode("utf-8"), depth_max)
    except NotStrictJson:
        raise
    except (ValueError, RecursionError):
        raise NotStrictJson("not JSON") from None
    if not isinstance(value, dict):
        raise NotStrictJson("not an object")
    return value


def parse_tolerant(text: bytes, *, depth_max: int) -> Any:
    """Parses a JSON text with UNREADABLE in place of each ambiguous value, so that only a reader
    of that place fails. Strings may contain NUL and lone surrogates.

    Args:
        text: UTF-8.
        depth_max: Values nested deeper are null.

    Raises:
        NotStrictJson: The text is not JSON.
    """
    try:
        return _TOLERANT.decode(_without_deep_values(text.decode("utf-8"), depth_max))
    except (ValueError, RecursionError):
        raise NotStrictJson("not JSON") from None


def is_deeper(text: str, depth_max: int) -> bool:
    """Whether a JSON text is nested deeper. Where Python's own parser gives up differs between
    versions."""
    return next(_edges_of_deep_values(text, depth_max), None) is not None


def with_numbers_as_floats(value: Any) -> Any:
    """The same JSON value with every number as float. The parser has limited its depth."""
    if isinstance(value, dict):
        return {name: with_numbers_as_floats(item) for name, item in value.items()}
    if isinstance(value, list):
        return [with_numbers_as_floats(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def is_number(value: object) -> bool:
    """Whether a parsed value is a JSON number (a bool is not)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parse(text: str, depth_max: int) -> object:
    if is_deeper(text, depth_max):
        raise NotStrictJson("nested too deeply")
    value = _STRICT.decode(text)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # lone surrogates fail here
    return value


def _without_deep_values(text: str, depth_max: int) -> str:
    edges = [0, *_edges_of_deep_values(text, depth_max), len(text)]
    return "null".join(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=False))


def _edges_of_deep_values(text: str, depth_max: int) -> Iterator[int]:
    """Start and end of each value below `depth_max` levels. Found first: the parser recurses."""
    # Most texts have fewer brackets than allowed levels; only others need the exact check.
    if text.count("{") + text.count("[") <= depth_max:
        return
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[0] in "{[":
            depth += 1
            if depth == depth_max + 1:
                yield found.start()
        elif found[0] in "}]":
            if depth == depth_max + 1:
                yield found.end()
            depth -= 1


def _decoder(ambiguous: Callable[[str], Any]) -> json.JSONDecoder:
    """A decoder that calls `ambiguous` with the reason for a value of two meanings."""

    def object_of(pairs: list[tuple[str, Any]]) -> Any:
        value = dict(pairs)
        return value if len(value) == len(pairs) else ambiguous("duplicate keys")

    def float_of(text: str) -> Any:
        value = float(text)
        return value if math.isfinite(value) else ambiguous("a number past a double")

    def integer_of(text: str) -> Any:
        return (
            int(text) if len(text) <= _INTEGER_DIGITS_MAX else ambiguous("a number past a double")
        )

    return json.JSONDecoder(
        object_pairs_hook=object_of,
        parse_constant=_refuse_constant,
        parse_float=float_of,
        parse_int=integer_of,
    )


def _refuse(reason: str) -> NoReturn:
    raise NotStrictJson(reason)


def _refuse_constant(_: str) -> NoReturn:
    raise NotStrictJson("not a number")


_STRICT = _decoder(_refuse)
_TOLERANT = _decoder(lambda _: UNREADABLE)
