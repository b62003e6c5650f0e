"""The settings of `pdp sidecar`. Secure by default: without an upstream it does not start."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from pdp.settings.addresses import is_loopback_address, listen_address
from pdp.settings.base import Frozen, listed, secret_text
from pdp.settings.callers import require_safe_listening
from pdp.settings.listening import ListeningSettings


class UpstreamTlsSettings(Frozen):
    """TLS of connections to upstream."""

    ca_file: Path | None = None
    """Authorities that may sign its certificate; None: those of the system."""
    certificate_file: Path | None = None
    """The program's own certificate, for mTLS."""
    private_key_file: Path | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.certificate_file is None) != (self.private_key_file is None):
            raise ValueError("give certificate_file and private_key_file together, or neither")
        return self


class StayOpenSettings(Frozen):
    """Permissions that fail open: their cached allows serve for a while after a lease has ended."""

    permission: str
    """A permission, or all of one type: `course:view`, `course:*`."""
    seconds: float = Field(gt=0, le=3600, allow_inf_nan=False)
    """For how long after the lease has ended."""

    @field_validator("permission")
    @classmethod
    def _is_not_everything(cls, value: str) -> str:
        if not re.fullmatch(r"[^:*\s]+:([^:*\s]+|\*)", value):
            raise ValueError("must be a permission, or all of one type: course:view, course:*")
        return value


class SidecarSettings(ListeningSettings):
    """All settings. docs/sidecar.md lists them; a test compares the list with this class."""

    model_config = SettingsConfigDict(env_prefix="PDP_SIDECAR_", extra="forbid")
    default_file: ClassVar[str] = "pdp-sidecar.toml"
    processes: ClassVar[int] = 1
    streams_share: ClassVar[int] = 64
    """A sidecar has no streams."""

    upstreams: Annotated[tuple[str, ...], NoDecode] = Field((), validate_default=True)
    """`host:port` of servers; the first that answers is used. In the environment: separated by
    commas, or a JSON list."""
    upstream_tls: UpstreamTlsSettings | None = None
    """None: clear text, on loopback only."""
    api_key: SecretStr | None = None
    """Authenticates the sidecar to upstream."""
    api_key_file: Path | None = None
    deadline_seconds: float = Field(0.2, gt=0, le=60, allow_inf_nan=False)
    """For a request to upstream, all upstreams together. Shorter than the 0.25 s of a guard: if a
    server hangs, the guard must still be waiting when the sidecar fails open."""

    entries_max: int = Field(10_000, ge=1)
    age_seconds_max: float = Field(30, gt=0, allow_inf_nan=False)
    """The longest time that an answer is cached."""
    stay_open: tuple[StayOpenSettings, ...] = ()

    audit_directory: Path = Path("sidecar-audit")

    listen: str = "127.0.0.1:50052"
    http_listen: str = "127.0.0.1:8081"
    insecure: bool = False
    """Call upstream in clear text, or listen beyond loopback without authenticated callers."""

    @field_validator("upstreams", mode="before")
    @classmethod
    def _upstreams_from_text(cls, value: Any) -> Any:
        return listed(value) if isinstance(value, str) else value

    @field_validator("upstreams")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError(
                "none is configured; say --upstream HOST:PORT, or set PDP_SIDECAR_UPSTREAMS, e.g. "
                "PDP_SIDECAR_UPSTREAMS=pdp.internal:50051"
            )
        for address in value:
            listen_address(address.removeprefix("dns:///"), unix=True)
        if len(set(value)) != len(value):
            raise ValueError("each may be named once")
        return value

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("give one of api_key and api_key_file")
        patterns = [rule.permission for rule in self.stay_open]
        if len(set(patterns)) != len(patterns):
            raise ValueError("stay_open: each permission may be named once")
        if self.upstream_tls is None and not self.insecure:
            for address in self.upstreams:
                if not is_loopback_address(address.removeprefix("dns:///")):
                    raise ValueError(
                        f"upstreams: {address} is beyond loopback, tokens would cross in clear "
                        "text; configure upstream_tls, or say --insecure"
                    )
        require_safe_listening(self.listen, self.callers, self.tls, insecure=self.insecure)
        return self

    def upstream_key(self) -> str | None:
        """The API key for upstream, from the setting or the file. Raises OSError."""
        return secret_text(self.api_key, self.api_key_file)

    def open_seconds(self, permission: str) -> float:
        """Length of the fail-open window of a permission in seconds; 0: none."""
        seconds = {rule.permission: rule.seconds for rule in self.stay_open}
        every = f"{permission.partition(':')[0]}:*"
        return seconds.get(permission, seconds.get(every, 0.0))
