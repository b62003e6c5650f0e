"""One frozen settings object, read once from `PDP_*` variables or a TOML file. Nothing else reads
the environment. Closed by default: without an issuer nothing starts.

Sources, strongest first: `PDP_*` variables (lists and tables as JSON), then the TOML file that
`PDP_CONFIG` names (or `pdp.toml` in the working directory, where there is one).
"""

import base64
import ipaddress
import json
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

Capability = Literal["decide", "administer", "audit"]
ALL_CAPABILITIES: frozenset[Capability] = frozenset(("decide", "administer", "audit"))
DEFAULT_FILE = "pdp.toml"
PORTS = 65_536
WEBHOOK_SECRET_BYTES_MIN = 24
WEBHOOK_SECRET_BYTES_MAX = 64
LOOPBACK_NAMES = frozenset(("localhost",))


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
        return _https_or_loopback(value)

    @model_validator(mode="after")
    def _one_key_source(self) -> Self:
        if sum(x is not None for x in (self.public_key, self.public_key_file, self.jwks_url)) > 1:
            raise ValueError("give one of public_key, public_key_file and jwks_url")
        return self


class CallerSettings(Frozen):
    """A backend that may call. Proves itself with an API key or with a client certificate."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    api_key_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the API key, hexadecimal. `pdp key` makes a pair."""
    spiffe_id: Annotated[str, StringConstraints(pattern=r"^spiffe://[^/\s]+/\S+$")] | None = None
    """The one URI subject alternative name of the client's certificate, exactly."""
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


class ClerkSettings(Frozen):
    """The Clerk instance that people come from."""

    instance_id: Annotated[str, StringConstraints(pattern=r"^ins_[0-9A-Za-z]+$")] | None = None
    """Whose webhooks and Backend API are believed; also the `kid` of the instance's tokens."""
    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Signing secrets of the webhook endpoint (`whsec_...`): several while one is being replaced.
    In the environment: separated by commas, or a JSON list. Empty: webhooks are not answered."""
    secret_key: SecretStr | None = None
    """`sk_live_...` or `sk_test_...`: for the Backend API."""
    api_url: str = "https://api.clerk.com/v1"
    provisioning: bool = False
    """Whether the first valid token of an unknown user creates the user."""
    default_role: str | None = None
    """A role that new users are granted everywhere, however they become known."""
    reconcile_seconds: float = Field(default=0, ge=0, allow_inf_nan=False)
    """How often the database is held against the Backend API; 0: never."""
    push_claims: bool = False
    """Write a user's role names into Clerk's `public_metadata` whenever their grants change."""

    @field_validator("webhook_secrets", mode="before")
    @classmethod
    def _secrets_from_text(cls, value: Any) -> Any:
        return _listed(value) if isinstance(value, str) else value

    @field_validator("secret_key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        # A file that ends with a line break, as often as not: it cannot stand in a header.
        if key is not None and not re.fullmatch(r"[!-~]+", key.get_secret_value()):
            raise ValueError("is empty, or holds a space, a line break or another odd character")
        return key

    @field_validator("webhook_secrets")
    @classmethod
    def _are_secrets(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in secrets:
            problem = webhook_secret_problem(secret.get_secret_value())
            if problem is not None:
                raise ValueError(problem)
        return secrets

    @field_validator("api_url")
    @classmethod
    def _is_https_or_loopback(cls, value: str) -> str:
        return _https_or_loopback(value.rstrip("/"))

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        if self.webhook_secrets and self.instance_id is None:
            raise ValueError("webhook_secrets need the instance_id that webhooks must name")
        if self.reconcile_seconds or self.push_claims:
            if self.secret_key is None:
                raise ValueError("reconcile_seconds and push_claims need the secret_key")
            if self.instance_id is None:
                raise ValueError(
                    "reconcile_seconds and push_claims need the instance_id that the key belongs to"
                )
        return self


def webhook_secret_problem(secret: str) -> str | None:
    """What is wrong with a webhook signing secret, without repeating it; None: it is well formed.

    Source: Standard Webhooks, `whsec_` and the base64 of 24 to 64 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        return "a webhook secret is whsec_ and base64"
    if not WEBHOOK_SECRET_BYTES_MIN <= len(key) <= WEBHOOK_SECRET_BYTES_MAX:
        return "a webhook secret holds 24 to 64 bytes"
    return None


class DatabaseSettings(BaseSettings):
    """Where policy and facts are: all that the commands on the database need."""

    model_config = SettingsConfigDict(
        env_prefix="PDP_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    database_url: SecretStr = SecretStr("sqlite:///pdp.db")
    """A SQLAlchemy URL of SQLite or PostgreSQL."""

    @classmethod
    def load(cls, file: Path | None = None, **overrides: Any) -> Self:
        """Reads the settings. Raises pydantic.ValidationError, which names each bad setting, and
        OSError where a named file is not there."""
        named = file or os.environ.get("PDP_CONFIG")  # noqa: TID251
        path = Path(named or DEFAULT_FILE)
        if named is not None and not path.is_file():
            raise FileNotFoundError(f"there is no settings file {path}")

        class FromFile(cls):  # type: ignore[valid-type, misc]
            model_config = SettingsConfigDict(toml_file=path)

        try:
            settings: Self = FromFile(**overrides)
        except SettingsError as error:
            # Its text names the setting; its cause holds the value.
            raise ValueError(f"settings: {error}: in variables lists and tables are JSON") from None
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


class Settings(DatabaseSettings):
    """All settings. docs/operations.md lists them; a test holds the list against this class."""

    model_config = SettingsConfigDict(extra="forbid")

    issuers: Annotated[tuple[IssuerSettings, ...], NoDecode] = Field(min_length=1)
    """Accepted Clerk instances. In the environment: a JSON list, or one or more URLs
    separated by commas."""
    clock_skew_seconds: float = Field(5, ge=0, le=30, allow_inf_nan=False)
    token_lifetime_seconds_max: float = Field(3600, gt=0, allow_inf_nan=False)
    jwks_refresh_seconds: float = Field(60, ge=1, allow_inf_nan=False)
    jwks_cooldown_seconds: float = Field(30, ge=1, allow_inf_nan=False)

    staleness_seconds_max: float = Field(5, gt=0, allow_inf_nan=False)
    poll_seconds: float = Field(0.2, gt=0, allow_inf_nan=False)

    audit_directory: Path = Path("audit")
    audit_allows: bool = False
    """Record allows too. Denials are always recorded."""

    door: Literal["grpc", "envoy"] = "grpc"
    """Who carries gRPC: grpcio, or Envoy with this process inside (the extra `pdp[envoy]`)."""
    listen: str = "127.0.0.1:50051"
    http_listen: str = "127.0.0.1:8080"
    processes: int = Field(1, ge=1, le=64)
    threads: int = Field(32, ge=1, le=1024)
    tls: TlsSettings | None = None
    clerk: ClerkSettings = ClerkSettings()
    """Where people come from, beside the administration service and policy documents."""
    callers: tuple[CallerSettings, ...] = ()
    """Empty: every caller is `anonymous` and may do everything, on loopback only."""
    insecure: bool = False
    """Listen beyond loopback though callers do not authenticate or their keys cross in clear."""
    shutdown_seconds: float = Field(10, ge=0, allow_inf_nan=False)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator("issuers", mode="before")
    @classmethod
    def _issuers_from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return [{"issuer": one} if isinstance(one, str) else one for one in _listed(value)]

    @field_validator("listen", "http_listen")
    @classmethod
    def _is_an_address(cls, value: str, info: ValidationInfo) -> str:
        host, _, port = value.rpartition(":")
        if (value.startswith("unix:") and info.field_name == "listen") or (
            host and port.isdecimal() and int(port) < PORTS
        ):
            return value
        raise ValueError("must be host:port" + ", or unix:PATH" * (info.field_name == "listen"))

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        names = [caller.name for caller in self.callers]
        if len(set(names)) != len(names):
            raise ValueError("callers: names must differ")
        issuers = [one.issuer for one in self.issuers]
        if len(set(issuers)) != len(issuers):
            raise ValueError("issuers: each may be named once")
        if self.door == "envoy" and self.listen.endswith(":0"):
            raise ValueError("listen: with the door `envoy` the port must be named")
        mtls = self.tls is not None and self.tls.client_ca_file is not None
        if any(caller.spiffe_id for caller in self.callers) and not mtls:
            raise ValueError("callers: a spiffe_id needs tls.client_ca_file")
        if not self.insecure and not is_loopback_address(self.listen):
            if not self.callers:
                raise ValueError(
                    f"listen: {self.listen} is beyond loopback and no callers are configured; "
                    "configure callers, or say --insecure"
                )
            if self.tls is None:
                raise ValueError(
                    f"listen: {self.listen} is beyond loopback and API keys would cross in clear; "
                    "configure tls, or say --insecure"
                )
        return self


def _listed(text: str) -> Sequence[Any]:
    """What a variable lists: a JSON list, or texts separated by commas. Raises ValueError."""
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        found: Sequence[Any] = json.loads(text)
    except ValueError:
        raise ValueError("begins as a JSON list, and is none") from None
    return found


def _https_or_loopback(url: str) -> str:
    """The URL itself, where what is sent there stays secret. Raises ValueError."""
    parts = urlsplit(url)
    loopback = is_loopback(parts.hostname or "")
    if not (parts.scheme == "https" or (parts.scheme == "http" and loopback)):
        raise ValueError("must be an https:// URL (http:// on loopback only)")
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("must be a plain URL with a host")
    return url


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_loopback_address(address: str) -> bool:
    """Whether `host:port` or `unix:...` can be reached from this machine only."""
    return address.startswith("unix:") or is_loopback(address.rpartition(":")[0])


def socket_address(listen: str) -> tuple[socket.AddressFamily, Any]:
    """The family and address of `host:port` or `unix:path`."""
    if listen.startswith("unix:"):
        return socket.AF_UNIX, listen.removeprefix("unix:").removeprefix("//")
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, int(port))
