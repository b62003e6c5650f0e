"""Public keys: parsed once, from PEM or from a key set, into key objects. No network.

Only RSA keys of 2048 to 8192 bits with an odd exponent from 65537 are accepted. Errors quote no
part of a key.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pdp.limits import IDENTIFIER_CHARACTERS_MAX
from pdp.settings import IssuerSettings
from pdp.strict_json import parse_object

KEY_SET_KEYS_MAX = 64
KEY_SET_BYTES_MAX = 256 * 1024
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192
_EXPONENT_MIN = 65537
_EXPONENT_BITS_MAX = 64
_KEY_SET_DEPTH_MAX = 8
_PEM = re.compile(
    r"-----BEGIN (?P<label>(?:RSA )?PUBLIC KEY)-----(?P<body>[A-Za-z0-9+/=\s]+)"
    r"-----END (?P=label)-----"
)
_BARE = re.compile(r"[A-Za-z0-9+/=\s]+")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_PRIVATE_MEMBERS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))


class KeyRefused(ValueError):
    """A text is not an acceptable public key, or not a key set."""


@dataclass(frozen=True, slots=True)
class KeySetContent:
    """The usable keys of a key set, by kid, and the entries that were not usable."""

    keys: Mapping[str, RSAPublicKey]
    ignored: Sequence[tuple[str, str]]
    """(kid, or position if there is none; why it was skipped)."""

    @property
    def skipped(self) -> int:
        """How many entries were not usable."""
        return len(self.ignored)


def pem_of(settings: IssuerSettings) -> str | None:
    """The PEM text of an issuer's key; None if its key set is fetched. Raises OSError."""
    if settings.public_key_file is not None:
        return settings.public_key_file.read_text(encoding="utf-8")
    return settings.public_key


def parse_pem(text: str) -> RSAPublicKey:
    r"""Parses a PEM public key in every form that Clerk's dashboard and SDKs use: plain, with CRLF,
    with newlines escaped (`\n`) or removed, or without its header and footer.

    Raises:
        KeyRefused: The text is not an acceptable key.
    """
    plain = text.removeprefix("\ufeff").replace("\\r", "").replace("\\n", "\n").strip()
    armoured = _PEM.fullmatch(plain)
    if armoured is None and _BARE.fullmatch(plain) is None:
        raise KeyRefused("not one PEM public key")
    body = "".join((armoured["body"] if armoured else plain).split())
    try:
        key = load_der_public_key(base64.b64decode(body, validate=True))
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        raise KeyRefused("not a PEM public key that can be read") from None
    if not isinstance(key, RSAPublicKey):
        raise KeyRefused("not an RSA key")
    numbers = key.public_numbers()
    _check_numbers(numbers.n, numbers.e)
    return key


def parse_key_set(text: bytes) -> KeySetContent:
    """Parses a JWKS document. An entry that is not an acceptable key is skipped and counted;
    entries with the same kid are all skipped, because they are ambiguous.

    Raises:
        KeyRefused: The document is not a key set, has too many entries, or no usable one.
    """
    content = read_key_set(text)
    if not content.keys:
        raise KeyRefused("no usable key")
    return content


def read_key_set(text: bytes) -> KeySetContent:
    """Parses a JWKS document, also one without a usable entry. Raises KeyRefused."""
    try:
        entries = parse_object(text, depth_max=_KEY_SET_DEPTH_MAX).get("keys")
    except ValueError:
        raise KeyRefused("not a JSON object") from None
    if not isinstance(entries, list):
        raise KeyRefused("no list of keys")
    if len(entries) > KEY_SET_KEYS_MAX:
        raise KeyRefused(f"more than {KEY_SET_KEYS_MAX} keys")
    kids = [entry.get("kid") if isinstance(entry, dict) else None for entry in entries]
    uses = Counter(kid for kid in kids if isinstance(kid, str))
    keys: dict[str, RSAPublicKey] = {}
    ignored: list[tuple[str, str]] = []
    for position, (kid, entry) in enumerate(zip(kids, entries, strict=True)):
        if not isinstance(kid, str) or not 0 < len(kid) <= IDENTIFIER_CHARACTERS_MAX:
            ignored.append((f"keys[{position}]", "has no kid that can be used"))
        elif uses[kid] > 1:
            ignored.append((kid, "is there more than once"))
        else:
            try:
                keys[kid] = _parse_jwk(entry)
            except KeyRefused as error:
                ignored.append((kid, str(error)))
    return KeySetContent(keys=keys, ignored=ignored)


def _parse_jwk(jwk: Mapping[str, Any]) -> RSAPublicKey:
    if jwk.get("kty") != "RSA" or jwk.get("use", "sig") != "sig":
        raise KeyRefused("not an RSA signing key")
    if jwk.get("alg", "RS256") != "RS256":
        raise KeyRefused("made for another algorithm")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise KeyRefused("a private key")
    n, e = _integer(jwk.get("n")), _integer(jwk.get("e"))
    _check_numbers(n, e)
    try:
        return RSAPublicNumbers(e=e, n=n).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise KeyRefused("not an RSA key") from None


def _integer(value: object) -> int:
    if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
        raise KeyRefused("not a base64url integer")
    try:
        return int.from_bytes(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)), "big")
    except binascii.Error:
        raise KeyRefused("not a base64url integer") from None


def _check_numbers(n: int, e: int) -> None:
    if not RSA_BITS_MIN <= n.bit_length() <= RSA_BITS_MAX:
        raise KeyRefused(f"not of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")
    if n % 2 == 0 or e % 2 == 0 or e < _EXPONENT_MIN or e.bit_length() > _EXPONENT_BITS_MAX:
        raise KeyRefused("not RSA numbers")
