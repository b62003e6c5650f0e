"""Removes secrets from values that others wrote, before they are logged.

Attributes of users and resources are free-form. So a value is removed if the name of its key looks
like that of a secret, and a text is masked if it looks like a token or key of a known form.
"""

import re
import unicodedata
from typing import Any, Final

REDACTED: Final = "[redacted]"

_SECRET_NAMES: Final = re.compile(
    "accesskey|apikey|authorization|backupcode|bearer|cookie|credential|jwt|passphrase|passw"
    "|privatekey|pwd|recoverycode|secret|signingkey|token|totp"
)
_NOT_LETTERS: Final = re.compile(r"[^a-z0-9]")
_SECRET_TEXTS: Final = re.compile(
    # Only from the start of a word: otherwise a long hostile text takes quadratic time.
    r"(?<![\w-])eyJ[\w-]{5,}\.[\w-]*(?:\.[\w-]*)*"  # a JSON Web Token, also without its signature
    r"|\b(?:sk|rk|pk)_(?:live|test)_\w{8,}"  # Clerk and Stripe
    r"|\bwhsec_[\w+/=-]{8,}"  # Svix
    r"|\b(?:gh[pousr]_\w{16,}|github_pat_\w{16,}|xox[a-z]-[\w-]{8,}|AKIA[0-9A-Z]{16})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL | re.ASCII,
)
_CHARACTERS_MIN: Final = 9
"""A shorter text matches none of these."""
_AFTER_SCHEME: Final = re.compile(r"(?i)\b((?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.ASCII)


def redact_text(text: str) -> str:
    """Masks what looks like a token, a key or a credential."""
    if len(text) < _CHARACTERS_MIN:
        return text
    return _AFTER_SCHEME.sub(rf"\1{REDACTED}", _SECRET_TEXTS.sub(REDACTED, text))


def redact(value: Any) -> Any:
    """Copies a JSON value without its secrets."""
    # The depth of attributes is bounded where they are accepted, so recursion is.
    if isinstance(value, dict):
        return {
            redact_text(name): REDACTED if _is_secret(name) else redact(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [redact(item) for item in value]
    return redact_text(value) if isinstance(value, str) else value


def _is_secret(name: str) -> bool:
    plain = name if name.isascii() else unicodedata.normalize("NFKC", name)
    letters = _NOT_LETTERS.sub("", plain.casefold())
    return _SECRET_NAMES.search(letters) is not None
