"""Nodes with their places: the result of both readers, YAML and JSON."""

from typing import Any, NamedTuple

from pdp.errors import InvalidPolicy, LimitExceeded, Violation
from pdp.limits import DOCUMENT_BYTES_MAX

Path = tuple[str | int, ...]

_PATH_CHARACTERS_MAX = 1_024


class Spot(NamedTuple):
    """A place in a text. Line and column count from 1."""

    line: int
    column: int


class Node(NamedTuple):
    """A value and its place. `value` is a scalar, a list of nodes, or a dict of nodes."""

    value: Any
    spot: Spot
    key_spots: dict[str, Spot] | None = None
    """The place of each key of a mapping."""


def check_text(text: str) -> None:
    """Raises InvalidPolicy for text with lone surrogates, LimitExceeded past DOCUMENT_BYTES_MAX."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidPolicy(Violation("document", "is not Unicode text")) from None
    if size > DOCUMENT_BYTES_MAX:
        raise LimitExceeded("document_bytes_max", DOCUMENT_BYTES_MAX, size)


def written_twice(path: str, first: Spot, spot: Spot) -> Violation:
    """The problem of a duplicate key."""
    text = f"is written twice; first on line {first.line}"
    return Violation(path, text, spot.line, spot.column)


def path_text(path: Path) -> str:
    """A path for people: `roles.ADMIN.allow[0]`; `document` for the whole. Bounded, because a key
    may be as long as the document and each of its problems contains its path."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")[:_PATH_CHARACTERS_MAX] or "document"


def spot_of(root: Node, path: Path) -> Spot:
    """The place of the value at `path` (a key of a mapping, an item of a list), or of the deepest
    existing part of the path."""
    node, spot = root, root.spot
    for part in path:
        if isinstance(node.value, dict) and isinstance(part, str) and part in node.value:
            if node.key_spots is not None:
                spot = node.key_spots[part]
            node = node.value[part]
        elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            spot = node.spot
        else:
            break
    return spot


def plain(node: Node) -> Any:
    """The tree as lists, dicts and scalars. Recursive: its depth is bounded."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value
