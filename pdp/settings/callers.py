"""Callers, TLS, and the rule for when callers must authenticate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import StringConstraints, model_validator

from pdp.settings.addresses import is_loopback_address
from pdp.settings.base import Frozen

Capability = Literal["decide", "administer", "audit", "report"]
ALL_CAPABILITIES: frozenset[Capability] = frozenset(("decide", "administer", "audit", "report"))


class CallerSettings(Frozen):
    """A backend that may call. It authenticates with an API key or a client certificate."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    api_key_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the API key, hexadecimal. `pdp key` makes a pair."""
    spiffe_id: Annotated[str, StringConstraints(pattern=r"^spiffe://[^/\s]+/\S+$")] | None = None
    """The only URI subject alternative name of the client's certificate, exactly."""
    may: frozenset[Capability] = frozenset(("decide",))

    @model_validator(mode="after")
    def _one_proof(self) -> Self:
        if (self.api_key_sha256 is None) == (self.spiffe_id is None):
            raise ValueError("give either api_key_sha256 or spiffe_id")
        return self


class TlsSettings(Frozen):
    """TLS of the gRPC port."""

    certificate_file: Path
    private_key_file: Path
    client_ca_file: Path | None = None
    """Set: clients must present a certificate that this authority signed (mTLS)."""


def require_safe_listening(
    listen: str, callers: Sequence[CallerSettings], tls: TlsSettings | None, *, insecure: bool
) -> None:
    """Raises ValueError if unauthenticated callers could reach a port beyond loopback."""
    names = [caller.name for caller in callers]
    if len(set(names)) != len(names):
        raise ValueError("callers: names must differ")
    for proof in ("api_key_sha256", "spiffe_id"):
        _require_own(callers, proof)
    mtls = tls is not None and tls.client_ca_file is not None
    if any(caller.spiffe_id for caller in callers) and not mtls:
        raise ValueError("callers: a spiffe_id needs tls.client_ca_file")
    if insecure or is_loopback_address(listen):
        return
    if not callers:
        raise ValueError(
            f"listen: {listen} is beyond loopback and no callers are configured; "
            "configure callers, or say --insecure"
        )
    if tls is None:
        raise ValueError(
            f"listen: {listen} is beyond loopback and API keys would cross in clear; "
            "configure tls, or say --insecure"
        )


def _require_own(callers: Sequence[CallerSettings], proof: str) -> None:
    """Raises ValueError if two callers have the same key or certificate."""
    owners: dict[str, str] = {}
    for caller in callers:
        value = getattr(caller, proof)
        if value is not None and owners.setdefault(value, caller.name) != caller.name:
            raise ValueError(
                f"callers: {owners[value]} and {caller.name} have the same {proof}; "
                "give each its own"
            )
