"""One signing key, its key set, and session tokens as Clerk shapes them."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import RSAAlgorithm

from pdp.identity import KeyPair, generate_key_pair, mint_development_token

ISSUER = "https://clerk.bench.example"
KEY_ID = "ins_development"
LIFETIME_SECONDS = 3_600


@dataclass(frozen=True, slots=True)
class Signer:
    """Mints tokens that every subject of the measurement accepts."""

    pair: KeyPair
    public_key_file: Path
    key_set_file: Path

    def token(self, user: str, organization: str | None, session: str = "") -> str:
        """A session token, valid for an hour from now: longer than the measurement."""
        return mint_development_token(
            self.pair.private_pem,
            issuer=ISSUER,
            user_id=user,
            session_id=session or f"sess_{user}",
            organization_id=organization,
            organization_role=None if organization is None else "member",
            now=time.time(),
            lifetime_seconds=LIFETIME_SECONDS,
        )

    def forged(self, token: str) -> str:
        """The same claims with a signature that is not theirs."""
        head, _, signature = token.rpartition(".")
        return f"{head}.{signature[::-1]}"


def make_signer(directory: Path) -> Signer:
    """A new key; its public half as PEM and as a key set in `directory`."""
    pair = generate_key_pair()
    public_key_file = directory / "issuer.pem"
    public_key_file.write_text(pair.public_pem)
    public_key = load_pem_public_key(pair.public_pem.encode())
    assert isinstance(public_key, RSAPublicKey)
    key = json.loads(RSAAlgorithm.to_jwk(public_key))
    key |= {"kid": KEY_ID, "alg": "RS256", "use": "sig"}
    key_set_file = directory / "issuer.jwks"
    key_set_file.write_text(json.dumps({"keys": [key]}))
    return Signer(pair, public_key_file, key_set_file)
