"""A request's path, as it was received -> its segments, or a refusal.

What a proxy, a framework and a file system make of a path differs wherever it is not plain, so what
is not plain is refused instead of repaired.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from pdp_routes.values import RouteRefused

PATH_BYTES_MAX: Final = 8 * 1024

_UNSAFE = re.compile(r"[^!-~]|[\\;#]|//|%(?![0-9A-Fa-f]{2})")
# Separators and what ends a path for somebody; `%` would be an escape for who decodes twice, and a
# space at an end is cut off by some (CVE-2016-5007).
_UNSAFE_DECODED = re.compile(r"[\x00-\x1f\x7f-\x9f/\\%;?#]|\A | \Z")
_DOTS: Final = frozenset((".", ".."))
# The letters beyond ASCII that are one of ASCII for a program to which letter case does not count:
# dotted I, dotless i, long s, Kelvin sign.
_FOLDED: Final = str.maketrans("\u0130\u0131\u017f\u212a", "iisk")


@dataclass(frozen=True, slots=True)
class Path:
    """The segments of a path, three times."""

    sent: list[str]
    decoded: list[str]
    """Percent-decoded once."""
    folded: list[str]
    """Decoded, and without letter case."""
    slash: bool
    """Ends with a slash; `/` has no segment and does."""


def read_path(target: str) -> Path:
    """Reads the path of a request target; the query is cut off. Raises RouteRefused."""
    path = target.partition("?")[0]
    if not path.startswith("/") or len(path) > PATH_BYTES_MAX or _UNSAFE.search(path):
        raise RouteRefused("ambiguous_path")
    sent = path[1:].split("/")
    slash = sent[-1] == ""
    if slash:
        sent.pop()
    decoded = [_decoded(segment) for segment in sent] if "%" in path else sent
    if not _DOTS.isdisjoint(decoded):
        raise RouteRefused("ambiguous_path")
    return Path(sent, decoded, [fold(segment) for segment in decoded], slash)


def fold(text: str) -> str:
    """Without letter case: equal where a program takes two texts for the same word in ASCII."""
    return text.translate(_FOLDED).lower() if not text.isascii() else text.lower()


def _decoded(segment: str) -> str:
    if "%" not in segment:
        return segment
    try:
        text = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise RouteRefused("ambiguous_path") from None
    if _UNSAFE_DECODED.search(text):
        raise RouteRefused("ambiguous_path")
    return text
