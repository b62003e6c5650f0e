"""Verifies the signature of a webhook message. Pure.

The library computes the signature. Headers are parsed here, strictly: the parser of the library
raises four kinds of errors and accepts spellings that were never signed (`1.7e9`, junk after
base64).

Source: Standard Webhooks 1.0.0; docs.svix.com, "Verifying webhooks manually".
"""

import enum
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from standardwebhooks import Webhook

TOLERANCE_SECONDS = 300
HEADER_CHARACTERS_MAX = 4 * 1024
SIGNATURES_MAX = 8

# The signed text is id.timestamp.body, without lengths: neither id nor timestamp may hold a dot.
_ID = re.compile(r"msg_[0-9A-Za-z]{8,64}")
_TIMESTAMP = re.compile(r"[0-9]{10}")
_SVIX, _STANDARD = (
    tuple(f"{prefix}-{name}" for name in ("id", "timestamp", "signature"))
    for prefix in ("svix", "webhook")
)

Headers = Sequence[tuple[str, str]]
"""Names (in any case) and values, as received."""


class Refusal(enum.Enum):
    """Why a message is refused. The value is a label of a metric."""

    HEADER_MISSING = "header_missing"
    HEADER_REPEATED = "header_repeated"
    HEADER_TOO_LONG = "header_too_long"
    ID_MALFORMED = "id_malformed"
    TIMESTAMP_MALFORMED = "timestamp_malformed"
    TIMESTAMP_OUT_OF_TOLERANCE = "timestamp_out_of_tolerance"
    TOO_MANY_SIGNATURES = "too_many_signatures"
    BODY_NOT_UTF8 = "body_not_utf8"
    SIGNATURE_WRONG = "signature_wrong"


class Claim(NamedTuple):
    """The content of well-formed headers."""

    message_id: str
    timestamp: str
    signatures: str


def verify(headers: Headers, body: bytes, secrets: Sequence[str], now: float) -> str | Refusal:
    """The message's id if one of the secrets signed exactly this body, at most `TOLERANCE_SECONDS`
    from `now` (Unix seconds). Raises nothing, whatever the input."""
    claim = check_headers(headers, now)
    return claim if isinstance(claim, Refusal) else check_body(claim, body, secrets)


def check_headers(headers: Headers, now: float) -> Claim | Refusal:
    """Checks the headers before the body is read. Uses no secret, so it proves nothing."""
    claim = _claim(headers)
    if isinstance(claim, Refusal):
        return claim
    return _problem(claim, now) or claim


def check_body(claim: Claim, body: bytes, secrets: Sequence[str]) -> str | Refusal:
    """The message's id if one of the secrets signed the body."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return Refusal.BODY_NOT_UTF8
    if not any(_is_signed(claim, text, secret) for secret in secrets):
        return Refusal.SIGNATURE_WRONG
    return claim.message_id


def _claim(headers: Headers) -> Claim | Refusal:
    """The three headers: with Svix' names if any of those is present."""
    given: dict[str, list[str]] = {}
    for name, value in headers:
        given.setdefault(name.lower(), []).append(value)
    names = _SVIX if given.keys() & set(_SVIX) else _STANDARD
    values = [given.get(name, []) for name in names]
    if not all(values):
        return Refusal.HEADER_MISSING
    if any(len(found) > 1 for found in values):
        return Refusal.HEADER_REPEATED
    if any(len(found[0]) > HEADER_CHARACTERS_MAX for found in values):
        return Refusal.HEADER_TOO_LONG
    return Claim(*(found[0] for found in values))


def _problem(claim: Claim, now: float) -> Refusal | None:
    if not _ID.fullmatch(claim.message_id):
        return Refusal.ID_MALFORMED
    if not _TIMESTAMP.fullmatch(claim.timestamp):
        return Refusal.TIMESTAMP_MALFORMED
    if abs(now - int(claim.timestamp)) > TOLERANCE_SECONDS:
        return Refusal.TIMESTAMP_OUT_OF_TOLERANCE
    if claim.signatures.count(" ") >= SIGNATURES_MAX:
        return Refusal.TOO_MANY_SIGNATURES
    return None


def _is_signed(claim: Claim, text: str, secret: str) -> bool:
    signed_at = datetime.fromtimestamp(int(claim.timestamp), UTC)
    expected = Webhook(secret).sign(claim.message_id, signed_at, text).encode()
    # Compared as text with its `v1,`: base64 of another spelling or length is not equal.
    return any(
        hmac.compare_digest(expected, signature.encode("utf-8", "replace"))
        for signature in claim.signatures.split(" ")
    )
