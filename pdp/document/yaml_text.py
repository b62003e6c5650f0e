"""Reads YAML text into nodes that know their place. Accepts a small, strict part of YAML 1.2.

Built from parser events rather than `yaml.compose`, without recursion, because documents are
untrusted input: the depth is bounded while reading, and aliases (with which ten lines become a
billion nodes) are rejected. Plain scalars follow YAML 1.2: `no`, `on`, `0123`, `12:30` and dates
are text, as written.
"""

import re
from collections.abc import Iterator

import yaml

from pdp.document.nodes import Node, Spot, check_text, path_text, written_twice
from pdp.errors import InvalidPolicy, Violation
from pdp.limits import DOCUMENT_DEPTH_MAX, VIOLATIONS_MAX

Scalar = str | int | float | bool | None

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_INTEGER_DIGITS_MAX = 400
"""More digits than any double has; converting more would take quadratic time in Python."""
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def plain_value(text: str) -> Scalar:
    """The value of an unquoted scalar: null, a boolean, a number in JSON's syntax, otherwise its
    text."""
    if text in _WORDS:
        return _WORDS[text]
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    whole = number.group(1) is None and number.group(2) is None
    return int(text) if whole and len(text) <= _INTEGER_DIGITS_MAX else float(text)


def read_yaml(text: str) -> tuple[Node, list[Violation]]:
    """Reads a YAML document.

    Returns its root and the problems that leave it readable (duplicate keys: the first counts).

    Raises:
        InvalidPolicy: the text is not accepted YAML.
        LimitExceeded: the text is longer than DOCUMENT_BYTES_MAX.
    """
    check_text(text)
    try:
        builder = _Builder()
        for event in _events(text):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        spot = (None, None) if mark is None else (mark.line + 1, mark.column + 1)
        problem = error.problem or "cannot be read"
        if mark is not None and _is_tab(text, mark.line, mark.column):
            problem = "a tab where only spaces are allowed: indent with spaces"
        raise InvalidPolicy(Violation("document", f"is not YAML: {problem}", *spot)) from None
    except yaml.reader.ReaderError as error:
        raise InvalidPolicy(Violation("document", f"is not YAML: {error.reason}")) from None
    if builder.fatal:
        raise InvalidPolicy(*builder.fatal, *builder.duplicates)
    if builder.root is None:
        raise InvalidPolicy(Violation("document", "is empty", 1))
    return builder.root, builder.duplicates


def _is_tab(text: str, line: int, column: int) -> bool:
    """Whether an error is at a tab, or after a tab that indents its line. Both count from 0."""
    lines = text.split("\n")
    written = lines[line] if line < len(lines) else ""
    indent = written[: len(written) - len(written.lstrip())]
    return "\t" in indent or written[column : column + 1] == "\t"


def _events(text: str) -> Iterator[yaml.Event]:
    return iter(yaml.parse(text, Loader=yaml.CSafeLoader))


class _Builder:
    """Builds the tree of a document from its events."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.fatal: list[Violation] = []
        self.duplicates: list[Violation] = []
        self._open: list[tuple[Node, str | None]] = []
        """Unfinished collections, outermost first; each mapping with the key that still has no
        value."""
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        mark = event.start_mark
        spot = Spot(1, 1) if mark is None else Spot(mark.line + 1, mark.column + 1)
        match event:
            case yaml.ScalarEvent():
                if event.anchor is not None or event.tag is not None:
                    self._check_properties(event, spot)
                plain = event.style is None or event.style == ""
                value = plain_value(event.value) if plain else event.value
                if plain and event.value == "<<" and self._expects_key():
                    self._refuse("merge keys (<<) are not read; write the values out", spot)
                self._place(Node(value, spot))
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._check_properties(event, spot)
                if len(self._open) >= DOCUMENT_DEPTH_MAX:
                    # The rest is not worth reading: this is not a policy.
                    text = f"is nested more than {DOCUMENT_DEPTH_MAX} levels deep"
                    raise InvalidPolicy(*self.fatal, Violation(self._path(), text, *spot))
                is_list = isinstance(event, yaml.SequenceStartEvent)
                node = Node([], spot) if is_list else Node({}, spot, {})
                self._place(node)
                self._open.append((node, None))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._open.pop()
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._refuse("a second YAML document starts here; write one", spot)
            case yaml.AliasEvent():
                self._refuse(f"aliases (*{event.anchor}) are not read; write the value out", spot)
                self._place(Node(None, spot))

    def _expects_key(self) -> bool:
        return (
            bool(self._open)
            and isinstance(self._open[-1][0].value, dict)
            and (self._open[-1][1] is None)
        )

    def _place(self, node: Node) -> None:
        if not self._open:
            if self.root is None:
                self.root = node
            return
        parent, key = self._open[-1]
        if isinstance(parent.value, list):
            parent.value.append(node)
        elif key is None:
            self._open[-1] = (parent, self._key(node, parent))
        else:
            self._open[-1] = (parent, None)
            # A rejected or duplicate key keeps no value.
            parent.value.setdefault(key, node)

    def _key(self, node: Node, parent: Node) -> str:
        if not isinstance(node.value, str):
            self._refuse("a key must be text; put it in quotes", node.spot)
            return ""
        spots = parent.key_spots
        if spots is None:
            return node.value
        if node.value in parent.value:
            field_path = f"{self._path()}.{node.value}".removeprefix("document.")
            self.duplicates.append(written_twice(field_path, spots[node.value], node.spot))
        else:
            spots[node.value] = node.spot
        return node.value

    def _check_properties(
        self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, spot: Spot
    ) -> None:
        if event.anchor is not None:
            self._refuse(f"anchors (&{event.anchor}) are not read; write the value out", spot)
        if event.tag is not None:
            self._refuse(f"tags ({event.tag}) are not read; quote text, leave the rest plain", spot)

    def _refuse(self, description: str, spot: Spot) -> None:
        self.fatal.append(Violation(self._path(), description, *spot))
        if len(self.fatal) >= VIOLATIONS_MAX:
            raise InvalidPolicy(*self.fatal)

    def _path(self) -> str:
        parts: list[str | int] = []
        for node, key in self._open:
            if isinstance(node.value, list):
                parts.append(len(node.value))
            elif key is not None:
                parts.append(key)
        return path_text(tuple(parts))
