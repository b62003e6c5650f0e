"""A strict JSON parser for security decisions: every accepted text has exactly one meaning.

Refused beside invalid JSON: duplicate keys (two readers could see two values), NaN, Infinity and
numbers beyond a double (1e400), nesting deeper than a limit (checked before the recursive parser
sees the text), bytes that are not UTF-8, and escapes that produce lone surrogates.
"""

import json
import math
import re
from typing import Any, NoReturn

# Also matches a string without an end. Possessive: the text is untrusted, so it must be linear.
_STRING = re.compile(r'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)
_INTEGER_DIGITS_MAX = 308
"""An integer of so many digits is still within a double."""


class NotStrictJson(ValueError):
    """The text is not accepted as JSON. The message quotes nothing of it."""


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
    # Most texts have fewer brackets than allowed levels; only others need the exact check.
    if text.count("{") + text.count("[") > depth_max and _is_deeper(text, depth_max):
        raise NotStrictJson("nested too deeply")
    value = _DECODER.decode(text)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # lone surrogates fail here
    return value


def _is_deeper(text: str, depth_max: int) -> bool:
    depth = 0
    for character in _STRING.sub("", text):
        if character in "{[":
            depth += 1
            if depth > depth_max:
                return True
        elif character in "}]":
            depth -= 1
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise NotStrictJson("duplicate keys")
    return value


def _constant(_: str) -> NoReturn:
    raise NotStrictJson("not a number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotStrictJson("a number past a double")
    return value


def _integer(text: str) -> int:
    if len(text) > _INTEGER_DIGITS_MAX:
        raise NotStrictJson("a number past a double")
    return int(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
)
