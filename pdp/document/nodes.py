"""A document as nodes with their places: what both readers, of YAML and of JSON, make of a text."""

from typing import Any, NamedTuple

from pdp.errors import InvalidPolicy, LimitExceeded, Violation
from pdp.limits import DOCUMENT_BYTES_MAX

Path = tuple[str | int, ...]

_PATH_CHARACTERS_MAX = 1_024


class Spot(NamedTuple):
    """A place in a text; both count from 1."""

    line: int
    column: int


class Node(NamedTuple):
    """A value and where it begins. `value` is a scalar, a list of nodes, or a dict of nodes."""

    value: Any
    spot: Spot
    key_spots: dict[str, Spot] | None = None
    """For a mapping: the place of each key."""


def check_text(text: str) -> None:
    """Raises InvalidPolicy for text with lone surrogates, LimitExceeded past DOCUMENT_BYTES_MAX."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidPolicy(Violation("document", "is not Unicode text")) from None
    if size > DOCUMENT_BYTES_MAX:
        raise LimitExceeded("document_bytes_max", DOCUMENT_BYTES_MAX, size)


def written_twice(path: str, first: Spot, spot: Spot) -> Violation:
    """The problem of a key that its mapping has already."""
    text = f"is written twice; first on line {first.line}"
    return Violation(path, text, spot.line, spot.column)


def path_text(path: Path) -> str:
    """A path for people: `roles.ADMIN.allow[0]`; `document` for the whole. Bounded: a key may be as
    long as the document, and each of its problems has a path."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")[:_PATH_CHARACTERS_MAX] or "document"


def spot_of(root: Node, path: Path) -> Spot:
    """The place of what `path` leads to (a key of a mapping, an item of a list), or of the deepest
    part of the path that is there."""
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
    """The tree as lists, dicts and scalars. Its depth is bounded, so recursion is."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value
