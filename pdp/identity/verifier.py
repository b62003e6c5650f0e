"""Verifies session tokens: shape, header, issuer and key, signature, claims, in this order."""

import base64
import binascii
import hashlib
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import FIFOCache
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

from pdp.clock import Clock
from pdp.gauges import Gauges
from pdp.identity.claims import (
    ClaimRules,
    actor_of,
    factor_minutes_of,
    organization_of,
    organization_role_of,
    refusal_of,
    starts_at,
    token_id_of,
)
from pdp.identity.key_sets import KeyFetches, KeySource, PemKey, RemoteKeySet, key_set_url
from pdp.identity.keys import KeyRefused, parse_pem, pem_of
from pdp.identity.organization_claims import without_look_alikes
from pdp.limits import ATTRIBUTE_DEPTH_MAX, TOKEN_BYTES_MAX
from pdp.model import Reason, RefusedToken, VerifiedToken
from pdp.settings import IssuerSettings
from pdp.strict_json import NotStrictJson, parse_object, with_numbers_as_floats

_ALGORITHM = "RS256"
_FINGERPRINT_DIGITS = 16
_SHAPE = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
# Clerk's other credentials are opaque texts with these prefixes (an `eyJ...` never has one).
_OPAQUE = re.compile(r"(?:mt|oat|ak|m2m|sk)_[^.]*", re.DOTALL)
# Header parameters that let a token choose its key, or change what is signed.
_REFUSED_PARAMETERS = frozenset(("crit", "b64", "jku", "jwk", "x5u", "x5c", "zip", "enc"))
_SESSION_CATEGORIES = frozenset(("cl_B7d4PD111AAA", "cl_I7d4PD111III"))
# Only PyJWT's RS256, without its token parser: the parser reads the header again by other rules,
# accepts padded and differently spelled tokens, and costs more than the signature.
_RS256 = RSAAlgorithm(RSAAlgorithm.SHA256)


@dataclass(frozen=True, slots=True)
class _Issuer:
    name: str
    keys: KeySource
    rules: ClaimRules


@dataclass(frozen=True, slots=True)
class _Entry:
    """A verified token, and what each cache hit must check again."""

    token: VerifiedToken
    keys: KeySource
    kid: str | None
    key: RSAPublicKey
    starts_at: float


class _Refused(Exception):  # carries a refusal within this file; not an error
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


class Verifier:
    """Verifies the session tokens of the configured issuers. Thread-safe.

    Raises:
        ValueError: At construction, if a PEM key cannot be used.
    """

    def __init__(
        self,
        issuers: Sequence[IssuerSettings],
        *,
        clock: Clock,
        clock_skew_seconds: float,
        token_lifetime_seconds_max: float,
        jwks_refresh_seconds: float,
        jwks_cooldown_seconds: float,
        token_cache_size: int = 20_000,
    ) -> None:
        self._clock = clock
        self._skew = clock_skew_seconds
        self._issuers: Mapping[str, _Issuer] = {
            settings.issuer: _Issuer(
                name=settings.issuer,
                keys=_key_source(settings, jwks_refresh_seconds, jwks_cooldown_seconds),
                rules=ClaimRules(
                    authorized_parties=frozenset(settings.authorized_parties),
                    audience=settings.audience,
                    clock_skew_seconds=clock_skew_seconds,
                    token_lifetime_seconds_max=token_lifetime_seconds_max,
                ),
            )
            for settings in issuers
        }
        # Key: the SHA-256 of the token's bytes, whole: header, payload and signature, so issuer,
        # kid and every claim are in it. Beyond that only the settings (which do not change), the
        # clock and the issuer's keys are read (which every hit checks again).
        # Emptied by: its size limit (oldest first; with tokens of one lifetime these expire first),
        # and by a hit that is no longer valid. Refusals are never cached.
        # A read does not modify a FIFO cache, so a hit needs no lock; a write does.
        self._cache: FIFOCache[bytes, _Entry] = FIFOCache(token_cache_size)
        self._cache_lock = threading.Lock()

    def start(self) -> None:
        """Starts fetching key sets. Call it after a fork, not before."""
        for issuer in self._issuers.values():
            issuer.keys.start()

    def stop(self) -> None:
        """Ends the fetching."""
        for issuer in self._issuers.values():
            issuer.keys.stop()

    def ready(self) -> bool:
        """Whether the tokens of at least one issuer can be verified. Issuers share nothing: missing
        keys of one issuer must not affect the others."""
        return any(issuer.keys.ready() for issuer in self._issuers.values())

    @property
    def cached_tokens(self) -> int:
        """Number of cached tokens; at most `token_cache_size`."""
        return len(self._cache)

    @property
    def key_fetches(self) -> Mapping[str, KeyFetches]:
        """Counts of key set fetches, by issuer."""
        return {name: issuer.keys.fetches for name, issuer in self._issuers.items()}

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "pdp_key_fetch_failures": (
                "Key set fetches that failed.",
                lambda: sum(fetches.failed for fetches in self.key_fetches.values()),
            ),
        }

    async def verify(self, token: str) -> VerifiedToken | RefusedToken:
        """Verifies a token. Suspends only while a key set is fetched.

        Returns:
            The verified token, or why it is refused.

        Raises:
            KeysUnavailable: The issuer's keys are not available.
        """
        if len(token) > TOKEN_BYTES_MAX:
            # Refused before the cache: the digest of its beginning is not a cache key.
            start = hashlib.sha256(token[:TOKEN_BYTES_MAX].encode("utf-8", "surrogatepass"))
            return RefusedToken(Reason.TOKEN_MALFORMED, start.hexdigest()[:_FINGERPRINT_DIGITS])
        return self.cached(token, self._clock()) or await self._verify(token, _digest(token))

    def cached(self, token: str, now: float) -> VerifiedToken | None:
        """The cached token, if it is still valid at `now` (Unix seconds); None: call `verify`."""
        if len(token) > TOKEN_BYTES_MAX:
            return None
        digest = _digest(token)
        try:
            entry = self._cache[digest]
        except KeyError:
            return None
        if (
            entry.token.expires_at > now - self._skew
            and entry.starts_at <= now + self._skew
            and entry.keys.current(entry.kid) is entry.key
        ):
            return entry.token
        with self._cache_lock:
            self._cache.pop(digest, None)
        return None

    async def _verify(self, token: str, digest: bytes) -> VerifiedToken | RefusedToken:
        fingerprint = digest.hex()[:_FINGERPRINT_DIGITS]
        try:
            header, payload, signature = _segments(token)
            kid = _check_header(_parse(header))
            claims = _parse(payload)
            issuer = self._issuer_of(claims)
            key = await issuer.keys.find(kid)
            if key is None:
                raise _Refused(Reason.TOKEN_KEY_UNKNOWN)
            _check_signature(token.rpartition(".")[0], signature, key)
        except _Refused as refused:
            return RefusedToken(reason=refused.reason, fingerprint=fingerprint)
        organization = organization_of(claims)
        actor = actor_of(claims, organization)
        reason = refusal_of(claims, issuer.rules, self._clock())
        if reason is not None or actor is None:
            return RefusedToken(
                reason=reason or Reason.TOKEN_CLAIM_INVALID,
                fingerprint=fingerprint,
                actor=actor,
                token_id=token_id_of(claims),
            )
        first, second = factor_minutes_of(claims)
        verified = VerifiedToken(
            actor=actor,
            issuer=issuer.name,
            key_id=kid or "",
            expires_at=float(claims["exp"]),
            claims=with_numbers_as_floats(without_look_alikes(claims)),
            token_id=token_id_of(claims),
            claimed_permissions=organization.permissions if organization else (),
            claimed_organization_role=organization_role_of(organization),
            claimed_organization_slug=organization.slug if organization else None,
            first_factor_minutes=first,
            second_factor_minutes=second,
            fingerprint=fingerprint,
        )
        with self._cache_lock:
            self._cache[digest] = _Entry(verified, issuer.keys, kid, key, starts_at(claims))
        return verified

    def _issuer_of(self, claims: Mapping[str, Any]) -> _Issuer:
        # Read before the signature is checked, and only to choose whose keys are tried.
        name = claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise _Refused(Reason.TOKEN_ISSUER_MISMATCH)
        return issuer


def read_unverified(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The header and claims of a token without verification, to explain a refusal.

    None if it does not have the form of a token.
    """
    if len(token) > TOKEN_BYTES_MAX:
        return None
    try:
        header, payload, _ = _segments(token)
        return _parse(header), _parse(payload)
    except _Refused:
        return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _key_source(
    settings: IssuerSettings, refresh_seconds: float, cooldown_seconds: float
) -> KeySource:
    pem = pem_of(settings)
    if pem is not None:
        try:
            return PemKey(parse_pem(pem))
        except KeyRefused as error:
            raise ValueError(f"public key of {settings.issuer}: {error}") from None
    return RemoteKeySet(
        settings.issuer,
        key_set_url(settings),
        refresh_seconds=refresh_seconds,
        cooldown_seconds=cooldown_seconds,
    )


def _segments(token: str) -> tuple[bytes, bytes, bytes]:
    parts = _SHAPE.fullmatch(token)
    if parts is None:
        opaque = _OPAQUE.fullmatch(token)
        raise _Refused(Reason.TOKEN_NOT_A_SESSION if opaque else Reason.TOKEN_MALFORMED)
    return _decode(parts[1]), _decode(parts[2]), _decode(parts[3])


def _decode(segment: str) -> bytes:
    """Decodes unpadded base64url in its canonical spelling (RFC 7515, section 2)."""
    try:
        value = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise _Refused(Reason.TOKEN_MALFORMED) from None
    if base64.urlsafe_b64encode(value).rstrip(b"=") != segment.encode("ascii"):
        raise _Refused(Reason.TOKEN_MALFORMED)
    return value


def _parse(text: bytes) -> dict[str, Any]:
    try:
        return parse_object(text, depth_max=ATTRIBUTE_DEPTH_MAX)
    except NotStrictJson:
        raise _Refused(Reason.TOKEN_MALFORMED) from None


def _check_header(header: Mapping[str, Any]) -> str | None:
    """Refuses a header that is not of a session token; returns its kid. Other parameters are
    ignored, as Clerk requires (`oiat` and future ones)."""
    if header.get("alg") != _ALGORITHM or not _REFUSED_PARAMETERS.isdisjoint(header):
        raise _Refused(Reason.TOKEN_ALGORITHM_NOT_ALLOWED)
    if header.get("typ", "JWT") != "JWT":
        raise _Refused(Reason.TOKEN_NOT_A_SESSION)
    category = header.get("cat")
    if "cat" in header and not (isinstance(category, str) and category in _SESSION_CATEGORIES):
        raise _Refused(Reason.TOKEN_NOT_A_SESSION)
    kid = header.get("kid")
    if "kid" in header and not isinstance(kid, str):
        raise _Refused(Reason.TOKEN_MALFORMED)
    return kid if isinstance(kid, str) else None


def _check_signature(signed: str, signature: bytes, key: RSAPublicKey) -> None:
    try:
        verified = _RS256.verify(signed.encode("ascii"), key, signature)
    except Exception:  # noqa: BLE001  # every exception of the library is a refusal
        verified = False
    if verified is not True:
        raise _Refused(Reason.TOKEN_SIGNATURE_INVALID)
