"""The settings of `pdp audit forward`. Secure by default: TLS to everything beyond loopback."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from pdp.settings.addresses import ConfidentialUrl, is_loopback_address, listen_address
from pdp.settings.base import Frozen, Loaded, secret_text
from pdp.settings.sidecar import UpstreamTlsSettings

Seconds = Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)]


class FileDestinationSettings(Frozen):
    """A file with rotation by size."""

    path: Path
    rotate_bytes: int = Field(100 << 20, ge=1 << 10)
    """A file of this size is rotated."""
    files_max: int = Field(10, ge=1, le=1_000)
    """How many files there are; older ones are deleted."""


class HttpDestinationSettings(Frozen):
    """An HTTP receiver of batches, of lines or of OTLP logs."""

    url: ConfidentialUrl
    authorization: SecretStr | None = None
    """Value of the header `Authorization`."""
    authorization_file: Path | None = None
    ca_file: Path | None = None
    """Authorities of its certificate; None: the usual ones."""
    seconds_max: Seconds = 30

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        if self.authorization is not None and self.authorization_file is not None:
            raise ValueError("give one of authorization and authorization_file")
        return self

    def header(self) -> str | None:
        """The value of `Authorization`, from the setting or the file. Raises OSError."""
        return secret_text(self.authorization, self.authorization_file)


class SyslogDestinationSettings(UpstreamTlsSettings):
    """A syslog server with TLS (RFC 5425)."""

    host: Annotated[str, StringConstraints(min_length=1)]
    """Name or address; its certificate must name it."""
    port: int = Field(6514, ge=1, le=65_535)
    seconds_max: Seconds = 30


class ForwardSettings(Loaded):
    """All settings. docs/siem.md lists them; a test compares the list with this class."""

    model_config = SettingsConfigDict(env_prefix="PDP_FORWARD_", extra="forbid")
    default_file: ClassVar[str] = "pdp-forward.toml"

    server: str = "127.0.0.1:50051"
    """`host:port` of a server."""
    server_tls: UpstreamTlsSettings | None = None
    """None: clear text, on loopback only."""
    api_key: SecretStr | None = None
    """Authenticates the forwarder; its caller needs the capability `audit`."""
    api_key_file: Path | None = None

    format: Literal["ocsf", "ecs", "cef", "json"] = "ocsf"
    file: FileDestinationSettings | None = None
    http: HttpDestinationSettings | None = None
    otlp: HttpDestinationSettings | None = None
    """Needs the extra `otlp`."""
    syslog: SyslogDestinationSettings | None = None

    cursor_file: Path = Path("pdp-forward.cursor")
    """How far everything is delivered. Beside it: a lock, and the records that were refused."""
    from_end: bool = False
    """Without a cursor: begin at the end of the log, not at its first record."""
    settle_seconds: float = Field(15, ge=0, le=600, allow_inf_nan=False)
    """The age at which a record is forwarded: its count of equal denials is complete then."""
    batch_records: int = Field(1_000, ge=1, le=1_000)
    """Records of a batch."""

    http_listen: str = "127.0.0.1:8082"
    """Probes and metrics."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator("http_listen")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        return listen_address(value, unix=False)

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        destinations = (self.file, self.http, self.otlp, self.syslog)
        if sum(each is not None for each in destinations) != 1:
            raise ValueError("configure exactly one destination: file, http, otlp or syslog")
        if self.syslog is not None and self.format == "json":
            raise ValueError(
                "format: a message of syslog is short, and json does not shorten records; "
                "choose ocsf, ecs or cef"
            )
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("give one of api_key and api_key_file")
        if self.server_tls is None and not is_loopback_address(self.server):
            raise ValueError(
                f"server: {self.server} is beyond loopback, and records would cross in clear text; "
                "configure server_tls"
            )
        return self

    def server_key(self) -> str | None:
        """The API key for the server, from the setting or the file. Raises OSError."""
        return secret_text(self.api_key, self.api_key_file)
