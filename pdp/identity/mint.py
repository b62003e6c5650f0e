"""Development tokens: session tokens in Clerk's form, signed with your own key.

They are marked twice: `kid` is `ins_development` and the claim `pdp_development` is true. They are
accepted only if the settings name the public key, so never by accident.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

DEVELOPMENT_KEY_ID = "ins_development"
DEVELOPMENT_CLAIM = "pdp_development"
_CATEGORY = "cl_B7d4PD111AAA"
_RSA_BITS = 2048
_EXPONENT = 65537


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An RSA key pair as PEM texts. `repr` hides the private key."""

    private_pem: str = field(repr=False)
    public_pem: str


def generate_key_pair() -> KeyPair:
    """A new RSA key pair of 2048 bits (PKCS#8 and SubjectPublicKeyInfo)."""
    private = rsa.generate_private_key(public_exponent=_EXPONENT, key_size=_RSA_BITS)
    return KeyPair(
        private_pem=private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode("ascii"),
        public_pem=private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode("ascii"),
    )


def mint_development_token(
    private_pem: str,
    *,
    issuer: str,
    user_id: str,
    session_id: str,
    now: float,
    lifetime_seconds: float,
    organization_id: str | None = None,
    organization_role: str | None = None,
    authorized_party: str | None = None,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """Signs a version 2 session token, valid from `now` (Unix seconds) for `lifetime_seconds`.

    `claims` are custom claims: as at Clerk, they cannot override the standard claims.

    Raises:
        ValueError: The PEM is not an RSA private key.
    """
    private = serialization.load_pem_private_key(private_pem.encode("utf-8"), password=None)
    if not isinstance(private, rsa.RSAPrivateKey):
        raise ValueError("not an RSA private key")  # noqa: TRY004  # of the text, not of its type
    issued_at = int(now)
    own: dict[str, Any] = {
        "v": 2,
        "iss": issuer,
        "sub": user_id,
        "sid": session_id,
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + int(lifetime_seconds),
        "sts": "active",
        DEVELOPMENT_CLAIM: True,
    }
    if organization_id is not None:
        own["o"] = {"id": organization_id}
        if organization_role is not None:
            own["o"]["rol"] = organization_role.removeprefix("org:")
    if authorized_party is not None:
        own["azp"] = authorized_party
    return jwt.encode(
        {**(claims or {}), **own},
        private,
        algorithm="RS256",
        headers={"kid": DEVELOPMENT_KEY_ID, "cat": _CATEGORY},
    )
