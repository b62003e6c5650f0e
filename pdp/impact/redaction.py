"""Removes secrets from recorded values: by the names of keys, and texts that are tokens or keys."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from fnmatch import translate
from typing import Any, Final

REDACTED: Final = "[redacted]"
KEY_CHARACTERS_MAX: Final = 256
"""Longer keys take too long to compare, so their values are removed."""
_SEPARATORS: Final = re.compile(r"[\s\-_.:/]+")
_INVISIBLE: Final = frozenset(("Cf", "Cc", "Mn"))
_SECRET_TEXT: Final = re.compile(
    # A JSON Web Token. Begins at the start of a word only, so that no text is scanned twice.
    r"(?<![\w-])eyJ[\w-]{5,}\.[\w-]+\.[\w-]*"
    r"|\b(?:sk|whsec|ak)_[\w-]{8,}"  # keys of Clerk and the like
    r"|(?i:\b(?:bearer|basic)\s+\S{8,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


class Redaction:
    """Patterns of keys, compiled."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """`patterns`: `*` and `?` as in file names. Case, separators and invisible characters of
        keys do not count: `*apikey*` matches `X-API-Key`."""
        joined = "|".join(translate(_plain(pattern)) for pattern in patterns)
        self._keys = re.compile(joined) if patterns else None

    def redact(self, value: Any) -> tuple[Any, int]:
        """The value without secrets, and how many were removed."""
        # The depth of attributes and claims is bounded where they are accepted, so recursion is.
        if isinstance(value, Mapping):
            found: dict[str, Any] = {}
            removed = 0
            for key, item in value.items():
                if self._matches(key):
                    shown, count = REDACTED, 1
                else:
                    shown, count = self.redact(item)
                is_secret = _SECRET_TEXT.search(key) is not None
                found[REDACTED if is_secret else key] = shown
                removed += count + is_secret
            return found, removed
        if isinstance(value, list | tuple):
            items = [self.redact(item) for item in value]
            return [item for item, _ in items], sum(count for _, count in items)
        if isinstance(value, str) and _SECRET_TEXT.search(value):
            return REDACTED, 1
        return value, 0

    def _matches(self, key: str) -> bool:
        if self._keys is None:
            return False
        return len(key) > KEY_CHARACTERS_MAX or self._keys.match(_plain(key)) is not None


def _plain(key: str) -> str:
    if key.isascii():
        return _SEPARATORS.sub("", key.casefold())
    folded = unicodedata.normalize("NFKD", key).casefold()
    visible = "".join(
        character for character in folded if unicodedata.category(character) not in _INVISIBLE
    )
    return _SEPARATORS.sub("", visible)
