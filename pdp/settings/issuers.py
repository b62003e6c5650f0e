"""Whose session tokens are accepted."""

from pathlib import Path
from typing import Self

from pydantic import field_validator, model_validator

from pdp.settings.addresses import https_or_loopback
from pdp.settings.base import Frozen


class IssuerSettings(Frozen):
    """One Clerk instance whose session tokens are accepted."""

    issuer: str
    """`iss`, byte for byte, e.g. `https://clerk.example.com`. No trailing slash."""
    public_key: str | None = None
    """The instance's PEM public key (text): verification then needs no network."""
    public_key_file: Path | None = None
    jwks_url: str | None = None
    """Where the key set is; by default `<issuer>/.well-known/jwks.json`."""
    authorized_parties: tuple[str, ...] = ()
    """Accepted `azp`, byte for byte. Empty: not checked."""
    audience: str | None = None
    """Required `aud`; None: not checked."""

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _is_https_or_loopback(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if value.endswith("/"):
            raise ValueError("must not end with a slash")
        return https_or_loopback(value)

    @model_validator(mode="after")
    def _one_key_source(self) -> Self:
        if sum(x is not None for x in (self.public_key, self.public_key_file, self.jwks_url)) > 1:
            raise ValueError("give one of public_key, public_key_file and jwks_url")
        return self
