"""Splits a request's path, as it was received, into segments, or refuses it.

Proxies, frameworks and file systems read a path differently unless it is plain. So a path that is
not plain is refused instead of repaired.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from pdp_routes.values import RouteRefused

PATH_BYTES_MAX: Final = 8 * 1024

_UNSAFE = re.compile(r"[^!-~]|[\\;#]|//|%(?![0-9A-Fa-f]{2})")
# Separators, and characters that end a path for some programs; `%` would be an escape for a program
# that decodes twice, and some programs cut off a trailing space (CVE-2016-5007).
_UNSAFE_DECODED = re.compile(r"[\x00-\x1f\x7f-\x9f/\\%;?#]|\A | \Z")
_DOTS: Final = frozenset((".", ".."))
# Letters beyond ASCII that case-insensitive programs take for an ASCII letter: dotted I, dotless i,
# long s, Kelvin sign.
_FOLDED: Final = str.maketrans("\u0130\u0131\u017f\u212a", "iisk")


@dataclass(frozen=True, slots=True)
class Path:
    """The segments of a path in three forms."""

    sent: list[str]
    decoded: list[str]
    """Percent-decoded once."""
    folded: list[str]
    """Decoded and case-folded."""
    slash: bool
    """Whether it ends with a slash; so does `/`, which has no segment."""


def read_path(target: str) -> Path:
    """Reads the path of a request target without its query. Raises RouteRefused."""
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
    """Folds case: texts that a program could take for the same ASCII word become equal."""
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
