r"""Reads JSON text into nodes that know their place, with exactly one reading of every text.

The YAML parser does not read JSON (RFC 8259): in YAML `"\ud83d\ude00"` is not a character, and a
tab is not allowed everywhere JSON allows it. This parser is as strict as `yaml_text`: it rejects
duplicate keys, numbers that no double holds, lone surrogates and nesting past DOCUMENT_DEPTH_MAX,
each with its place. The standard library's parser keeps no places, so this module finds the tokens
and lets the library decode the texts.
"""

import math
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import NoReturn

from pdp.document.nodes import Node, Path, Spot, check_text, path_text, written_twice
from pdp.errors import InvalidPolicy, Violation
from pdp.limits import DOCUMENT_DEPTH_MAX, VIOLATIONS_MAX

_START = re.compile(r'\ufeff?[ \t\r\n]*\{[ \t\r\n]*["}]')
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_WORD = re.compile(r"\w{1,20}|.", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_INTEGER_DIGITS_MAX = 308
"""Every integer with at most so many digits is within the range of a double."""
_CONSTANTS = {"true": True, "false": False, "null": None}


def is_json(text: str) -> bool:
    """Whether a document is JSON: it begins with `{` and a quoted key, or with `{}`. No other text
    is a JSON object. The only YAML that begins so is in flow style with a quoted first key."""
    return _START.match(text) is not None


def read_json(text: str) -> tuple[Node, list[Violation]]:
    """Reads a JSON value.

    Returns its root and the problems that leave it readable (duplicate keys: the first counts).

    Raises:
        InvalidPolicy: the text is not JSON.
        LimitExceeded: the text is longer than DOCUMENT_BYTES_MAX.
    """
    check_text(text)
    scanner = _Scanner(text)
    return scanner.document(), scanner.duplicates


class _Scanner:
    """Scans a text from left to right."""

    def __init__(self, text: str) -> None:
        self.duplicates: list[Violation] = []
        self._text = text
        self._at = 1 if text.startswith("\ufeff") else 0
        self._path: list[str | int] = []
        self._line, self._line_start, self._counted = 1, self._at, self._at

    def document(self) -> Node:
        self._skip()
        root = self._value()
        self._skip()
        if self._at < len(self._text):
            self._refuse("there is more text after the object")
        return root

    def _value(self) -> Node:
        character = self._peek()
        if character == "{":
            return self._object()
        if character == "[":
            return self._array()
        spot = self._spot()
        if character == '"':
            return Node(self._string(), spot)
        number = _NUMBER.match(self._text, self._at)
        if number is not None:
            value = self._number(number)
            self._at = number.end()
            return Node(value, spot)
        word = _WORD.match(self._text, self._at)
        if word is None:
            self._refuse("it ends too early")
        if word[0] not in _CONSTANTS:
            self._refuse(f"{word[0]!r} is not a value")
        self._at = word.end()
        return Node(_CONSTANTS[word[0]], spot)

    def _object(self) -> Node:
        keys: dict[str, Spot] = {}
        node = Node({}, self._open(), keys)
        while self._peek() != "}":
            if keys:
                self._expect(",", "}")
            if self._peek() != '"':
                self._refuse("a key in double quotes is expected here")
            spot = self._spot()
            key = self._string()
            self._path.append(key)
            self._skip()
            self._expect(":")
            value = self._value()
            if key in keys:
                if len(self.duplicates) < VIOLATIONS_MAX:
                    path = path_text(tuple(self._path))
                    self.duplicates.append(written_twice(path, keys[key], spot))
            else:
                keys[key] = spot
                node.value[key] = value
            self._path.pop()
            self._skip()
        self._at += 1
        return node

    def _array(self) -> Node:
        node = Node([], self._open())
        while self._peek() != "]":
            if node.value:
                self._expect(",", "]")
            self._path.append(len(node.value))
            node.value.append(self._value())
            self._path.pop()
            self._skip()
        self._at += 1
        return node

    def _open(self) -> Spot:
        """Enters an object or an array. Returns where it begins."""
        spot = self._spot()
        if len(self._path) >= DOCUMENT_DEPTH_MAX:
            text = f"is nested more than {DOCUMENT_DEPTH_MAX} levels deep"
            raise InvalidPolicy(Violation(path_text(tuple(self._path)), text, *spot))
        self._at += 1
        self._skip()
        return spot

    def _string(self) -> str:
        start = self._at
        try:
            value, self._at = scanstring(self._text, start + 1, True)
        except ValueError as error:
            self._at = getattr(error, "pos", start)
            self._refuse(getattr(error, "msg", "a text is not closed").lower())
        if not value.isascii() and _SURROGATE.search(value):
            self._at = start
            self._refuse("a text holds half of a surrogate pair")
        return str(value)

    def _number(self, found: "re.Match[str]") -> float | int:
        whole = found[1] is None and found[2] is None
        if whole and len(found[0]) <= _INTEGER_DIGITS_MAX:
            return int(found[0])
        value = float(found[0])
        if whole or not math.isfinite(value):
            self._refuse("a number is outside of the range of a double")
        return value

    def _expect(self, character: str, other: str = "") -> None:
        if self._peek() != character:
            wanted = f"{character!r} or {other!r}" if other else repr(character)
            self._refuse(f"{wanted} is expected here")
        self._at += 1
        self._skip()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found is not None else self._at

    def _spot(self) -> Spot:
        """The current place. Counts lines on from the last call."""
        lines = self._text.count("\n", self._counted, self._at)
        if lines:
            self._line += lines
            self._line_start = self._text.rindex("\n", self._counted, self._at) + 1
        self._counted = self._at
        return Spot(self._line, self._at - self._line_start + 1)

    def _refuse(self, problem: str) -> NoReturn:
        # Only an error may look for an earlier place; nothing is counted after it.
        self._counted, self._line, self._line_start = 0, 1, 0
        path: Path = tuple(self._path)
        raise InvalidPolicy(
            Violation(path_text(path), f"is not JSON: {problem}", *self._spot()), *self.duplicates
        )
