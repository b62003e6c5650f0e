"""A token mint for tests: Clerk-shaped session tokens, and anything that only looks like one.

Signs with `cryptography` alone, so that it shares nothing with the code under test. RSA keys are
generated once per run, by name.

    token = session_token(now=clock())                                # a good one of `user_1`
    token = session_token(now=clock(), organization_id="org_a", organization_role="org:admin")
    token = session_token(now=clock(), claims={"exp": "soon"}, without=("sid",))
    token = session_token(now=clock(), header={"alg": "none"}, key=signing_key("other"))
    token = raw_token(b'{"alg":"RS256","alg":"none"}', b"not json", signing_key())
"""

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ISSUER = "https://clerk.example.test"
PARTY = "https://app.example.test"
USER_ID = "user_1"
SESSION_ID = "sess_1"
LIFETIME_SECONDS = 60

SESSION_CATEGORY = "cl_B7d4PD111AAA"
TEMPLATE_CATEGORY = "cl_B7d4PD222AAA"
MACHINE_CATEGORY = "cl_B7d4PD333AAA"
IGNORED_CATEGORY = "cl_I7d4PD111III"


@dataclass(frozen=True)
class SigningKey:
    """An RSA key pair and the `kid` it is published under (Clerk: the instance id)."""

    kid: str
    private: rsa.RSAPrivateKey

    @property
    def public_pem(self) -> str:
        return (
            self.private.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode("ascii")
        )

    def jwk(self, **overrides: Any) -> dict[str, Any]:
        """The public key as a JWKS entry; an override of None removes the field."""
        numbers = self.private.public_key().public_numbers()
        fields = {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.kid,
            "n": base64url_of_integer(numbers.n),
            "e": base64url_of_integer(numbers.e),
        } | overrides
        return {name: value for name, value in fields.items() if value is not None}

    def sign(self, signed: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256."""
        return _signature(self.private, signed)


@functools.lru_cache(maxsize=1_000)  # the same bytes have the same signature, which takes 1 ms
def _signature(private: rsa.RSAPrivateKey, signed: bytes) -> bytes:
    return private.sign(signed, padding.PKCS1v15(), hashes.SHA256())


def signing_key(name: str = "main", *, bits: int = 2048) -> SigningKey:
    """The key pair of that name; `kid` is `ins_<name>`. The same all through a run."""
    return _generated_key(name, bits)


@functools.cache  # f(), f("main") and f(name="main") would be three entries
def _generated_key(name: str, bits: int) -> SigningKey:
    return SigningKey(
        kid=f"ins_{name}", private=rsa.generate_private_key(public_exponent=65537, key_size=bits)
    )


def session_claims(
    *,
    now: float,
    version: int = 2,
    issuer: str = ISSUER,
    user_id: str = USER_ID,
    session_id: str = SESSION_ID,
    organization_id: str | None = None,
    organization_role: str = "org:member",
    features: str | None = None,
    permissions: str | None = None,
    masks: str | None = None,
    organization_permissions: Sequence[str] = (),
    claims: Mapping[str, Any] | None = None,
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """The payload of a session token as Clerk makes it at `now` (seconds).

    Version 2 takes `features` (`fea`), `permissions` (`o.per`) and `masks` (`o.fpm`), version 1
    `organization_permissions`. `claims` overrides any claim, `without` removes some.
    """
    issued_at = int(now)
    payload: dict[str, Any] = {
        "azp": PARTY,
        "exp": issued_at + LIFETIME_SECONDS,
        "fva": [1, -1],
        "iat": issued_at,
        "iss": issuer,
        "jti": "0123456789abcdef",
        "nbf": issued_at - 10,
        "sid": session_id,
        "sub": user_id,
    }
    if version == 2:
        payload |= {"v": 2, "sts": "active", "pla": "u:free"}
        if features is not None:
            payload["fea"] = features
        if organization_id is not None:
            o: dict[str, Any] = {
                "id": organization_id,
                "slg": organization_id.removeprefix("org_"),
                "rol": organization_role.removeprefix("org:"),
            }
            if permissions is not None:
                o["per"] = permissions
            if masks is not None:
                o["fpm"] = masks
            payload["o"] = o
    elif organization_id is not None:
        payload |= {
            "org_id": organization_id,
            "org_slug": organization_id.removeprefix("org_"),
            "org_role": organization_role,
            "org_permissions": list(organization_permissions),
        }
    payload |= claims or {}
    return {name: value for name, value in payload.items() if name not in without}


def session_token(
    *,
    now: float,
    key: SigningKey | None = None,
    header: Mapping[str, Any] | None = None,
    without_header: Sequence[str] = (),
    **claims_arguments: Any,
) -> str:
    """A signed session token; the further arguments are those of `session_claims`.

    `header` overrides header parameters (the signature stays RS256 whatever `alg` says),
    `without_header` removes some.
    """
    key = key or signing_key()
    fields: dict[str, Any] = {"alg": "RS256", "cat": SESSION_CATEGORY, "kid": key.kid, "typ": "JWT"}
    merged = {k: v for k, v in {**fields, **(header or {})}.items() if k not in without_header}
    return raw_token(merged, session_claims(now=now, **claims_arguments), key)


def raw_token(
    header: Mapping[str, Any] | bytes, payload: Mapping[str, Any] | bytes, key: SigningKey
) -> str:
    """A token of exactly these bytes (or this JSON), signed by the key with RS256."""
    signed = signing_input(header, payload)
    return f"{signed}.{base64url(key.sign(signed.encode('ascii')))}"


def signing_input(header: Mapping[str, Any] | bytes, payload: Mapping[str, Any] | bytes) -> str:
    """`base64url(header).base64url(payload)`: what a signature covers."""
    return f"{base64url(_json_bytes(header))}.{base64url(_json_bytes(payload))}"


def base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def base64url_of_integer(value: int) -> str:
    return base64url(value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _json_bytes(value: Mapping[str, Any] | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def altered(text: str) -> str:
    """The text with another character in its middle: of the last one base64 ignores some bits."""
    middle = len(text) // 2
    return text[:middle] + ("B" if text[middle] == "A" else "A") + text[middle + 1 :]
