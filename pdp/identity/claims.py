"""The rules for a session token's claims. Pure: claims, rules and the time in, a reason out.

Called only after the signature is verified. Source: clerk/javascript
`packages/backend/src/jwt/assertions.ts`, and the classes of token of `tokens/jwtCategories.ts`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdp.identity.organization_claims import (
    OrganizationClaims,
    OrganizationClaimsInvalid,
    decode_organization,
    is_identifier,
)
from pdp.model import Actor, Reason
from pdp.strict_json import is_number

_FACTORS = 2
_NEVER = -1


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What an issuer's tokens are checked against."""

    authorized_parties: frozenset[str]
    """Empty: `azp` is not checked."""
    audience: str | None
    """None: `aud` is not checked."""
    clock_skew_seconds: float
    token_lifetime_seconds_max: float


def refusal_of(claims: Mapping[str, Any], rules: ClaimRules, now: float) -> Reason | None:
    """Why a token with these claims is refused at `now` (Unix seconds); None: it is accepted."""
    return (
        _class_refusal(claims)
        or _party_refusal(claims, rules)
        or _time_refusal(claims, rules, now)
        or _state_refusal(claims)
    )


def actor_of(claims: Mapping[str, Any], organization: OrganizationClaims | None) -> Actor | None:
    """The actor of a token; None if `sub` and `sid` are not those of a session.

    The actor of a refused token is evidence for the audit log, and nothing else.
    """
    if not _names_a_session(claims):
        return None
    act = claims.get("act")
    impersonator = act.get("sub") if isinstance(act, dict) else None
    return Actor(
        user_id=claims["sub"],
        session_id=claims["sid"],
        organization_id=organization.id if organization else None,
        impersonator_id=impersonator if is_identifier(impersonator) else None,
    )


def organization_of(claims: Mapping[str, Any]) -> OrganizationClaims | None:
    """The active organization; None if there is none, or its claims are malformed."""
    try:
        return decode_organization(claims)
    except OrganizationClaimsInvalid:
        return None


def organization_role_of(organization: OrganizationClaims | None) -> str | None:
    """The claimed role in the active organization with its prefix (`org:admin`), which version 1
    may leave out; None if there is none."""
    if organization is None or organization.role is None:
        return None
    name = organization.role.removeprefix("org:")
    return f"org:{name}" if name else None


def token_id_of(claims: Mapping[str, Any]) -> str | None:
    """`jti`; None if it is not an identifier."""
    value = claims.get("jti")
    return value if is_identifier(value) else None


def factor_minutes_of(claims: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Minutes since the first and the second factor were verified (`fva`).

    None, which is never fresh, for a factor that was not verified, and for both if the claim is
    absent or malformed.
    """
    value = claims.get("fva")
    if not isinstance(value, list) or len(value) != _FACTORS:
        return None, None
    if not all(is_number(age) and (age == _NEVER or age >= 0) for age in value):
        return None, None
    first, second = (None if age == _NEVER else float(age) for age in value)
    return first, second


def starts_at(claims: Mapping[str, Any]) -> float:
    """The later of `iat` and `nbf` (Unix seconds). The claims must have been accepted."""
    return max(float(claims["iat"]), float(claims.get("nbf", -math.inf)))


def _class_refusal(claims: Mapping[str, Any]) -> Reason | None:
    # A machine token's subject is `mch_...`; a template token has no `sid`.
    subject, session = claims.get("sub"), claims.get("sid", "")
    if not isinstance(subject, str) or not isinstance(session, str):
        return Reason.TOKEN_CLAIM_INVALID
    if not subject.startswith("user_") or not session.startswith("sess_"):
        return Reason.TOKEN_NOT_A_SESSION
    return None if _names_a_session(claims) else Reason.TOKEN_CLAIM_INVALID


def _party_refusal(claims: Mapping[str, Any], rules: ClaimRules) -> Reason | None:
    if rules.audience is not None:
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if not all(isinstance(name, str) for name in named) or rules.audience not in named:
            return Reason.TOKEN_AUDIENCE_MISMATCH
    if rules.authorized_parties:
        party = claims.get("azp")
        if party is None or party == "":
            return Reason.TOKEN_PARTY_MISSING
        if not isinstance(party, str) or party not in rules.authorized_parties:
            return Reason.TOKEN_PARTY_NOT_AUTHORIZED
    return None


def _time_refusal(claims: Mapping[str, Any], rules: ClaimRules, now: float) -> Reason | None:
    # `iat` is required, although Clerk allows its absence: without it the lifetime has no bound.
    expires, issued, not_before = claims.get("exp"), claims.get("iat"), claims.get("nbf")
    if not is_number(expires) or not is_number(issued):
        return Reason.TOKEN_CLAIM_INVALID
    if "nbf" in claims and not is_number(not_before):
        return Reason.TOKEN_CLAIM_INVALID
    skew = rules.clock_skew_seconds
    if float(claims["exp"]) <= now - skew:
        return Reason.TOKEN_EXPIRED
    if starts_at(claims) > now + skew:
        return Reason.TOKEN_NOT_YET_VALID
    if claims["exp"] - claims["iat"] > rules.token_lifetime_seconds_max:
        return Reason.TOKEN_LIFETIME_TOO_LONG
    return None


def _state_refusal(claims: Mapping[str, Any]) -> Reason | None:
    if "sts" in claims and claims["sts"] != "active":
        return Reason.SESSION_PENDING
    try:
        decode_organization(claims)
    except OrganizationClaimsInvalid:
        return Reason.TOKEN_CLAIM_INVALID
    if "act" in claims:  # an impersonator without a valid id must not pass as the user
        act = claims["act"]
        if not isinstance(act, dict) or not is_identifier(act.get("sub")):
            return Reason.TOKEN_CLAIM_INVALID
    return None


def _names_a_session(claims: Mapping[str, Any]) -> bool:
    return _has_prefix(claims.get("sub"), "user_") and _has_prefix(claims.get("sid"), "sess_")


def _has_prefix(value: object, prefix: str) -> bool:
    return (
        isinstance(value, str)
        and is_identifier(value)
        and len(value) > len(prefix)
        and (value.startswith(prefix))
    )
