"""The issuers whose session tokens are accepted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import field_validator, model_validator

from pdp.settings.addresses import https_or_loopback, is_loopback
from pdp.settings.base import Frozen

DEVELOPMENT_SUFFIXES = (
    ".accounts.dev",
    ".accountsstage.dev",
    ".lcl.dev",
    ".lclstage.dev",
    ".lclclerk.com",
    ".stg.dev",
    ".stgstage.dev",
)
"""Hosts of the Frontend API of Clerk's development and staging instances.

Source: https://github.com/clerk/javascript/blob/main/packages/shared/src/constants.ts
"""


class IssuerSettings(Frozen):
    """A Clerk instance whose session tokens are accepted."""

    issuer: str
    """`iss`, byte for byte, e.g. `https://clerk.example.com`. No trailing slash."""
    public_key: str | None = None
    """The instance's PEM public key (text): verification then needs no network."""
    public_key_file: Path | None = None
    jwks_url: str | None = None
    """URL of the key set; by default `<issuer>/.well-known/jwks.json`."""
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


def is_development(url: str) -> bool:
    """Whether a URL belongs to a Clerk development instance, or to this machine."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    return is_loopback(host) or f".{host}".endswith(DEVELOPMENT_SUFFIXES)


def development_beside_production(issuers: Sequence[IssuerSettings]) -> tuple[str, str] | None:
    """A development instance (its issuer, or the URL of its keys) and a production issuer, if both
    are accepted; otherwise None."""
    production = [settings.issuer for settings in issuers if not is_development(settings.issuer)]
    development = [
        url
        for settings in issuers
        for url in (settings.issuer, settings.jwks_url)
        if url is not None
        and is_development(url)
        # A key set on this machine is a copy of the issuer's keys.
        and not (url == settings.jwks_url and is_loopback(urlsplit(url).hostname or ""))
    ]
    return (development[0], production[0]) if development and production else None
