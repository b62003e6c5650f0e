"""The settings of `pdp serve`. Secure by default: without an issuer it does not start."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from pdp.settings.audit_tree import AuditTreeSettings
from pdp.settings.base import Loaded, listed
from pdp.settings.callers import require_safe_listening
from pdp.settings.clerk import ClerkSettings
from pdp.settings.console import ConsoleSettings, require_safe_console
from pdp.settings.issuers import IssuerSettings, development_beside_production
from pdp.settings.listening import ListeningSettings


class DatabaseSettings(Loaded):
    """The database of policy and facts: the only setting that database commands need."""

    database_url: SecretStr = SecretStr("sqlite:///pdp.db")
    """A SQLAlchemy URL of SQLite or PostgreSQL."""


class RetentionSettings(DatabaseSettings):
    """The database, and the keys that sign archives of its decision log."""

    audit_tree: AuditTreeSettings | None = None
    """None: there is no tree over the decision log."""


class Settings(ListeningSettings, RetentionSettings):
    """All settings. docs/settings.md lists them; a test compares the list with this class."""

    model_config = SettingsConfigDict(extra="forbid")

    issuers: Annotated[tuple[IssuerSettings, ...], NoDecode] = Field((), validate_default=True)
    """Accepted Clerk instances. In the environment: a JSON list, or one or more URLs
    separated by commas."""
    allow_development_issuers: bool = False
    """Accept a development instance, where anybody may sign up, beside a production one."""
    clock_skew_seconds: float = Field(5, ge=0, le=30, allow_inf_nan=False)
    token_lifetime_seconds_max: float = Field(3600, gt=0, allow_inf_nan=False)
    jwks_refresh_seconds: float = Field(60, ge=1, allow_inf_nan=False)
    jwks_cooldown_seconds: float = Field(30, ge=1, allow_inf_nan=False)

    staleness_seconds_max: float = Field(5, gt=0, allow_inf_nan=False)
    poll_seconds: float = Field(0.2, gt=0, allow_inf_nan=False)

    audit_directory: Path = Path("audit")
    audit_allows: bool = False
    """Record allows too. Denials are always recorded."""
    audit_inputs: Literal["none", "full"] = "none"
    """Whether decisions are recorded with what they read, for `pdp replay`."""
    audit_redacted_keys: tuple[str, ...] = (
        "*password*",
        "*passwd*",
        "*passphrase*",
        "*secret*",
        "*token*",
        "*apikey*",
        "*privatekey*",
        "*credential*",
        "*authorization*",
        "*cookie*",
    )
    """Keys of claims, attributes and context whose values are never recorded. `*` and `?` as in
    file names; case and separators do not count."""

    listen: str = "127.0.0.1:50051"
    http_listen: str = "127.0.0.1:8080"
    processes: int = Field(1, ge=1, le=64)
    clerk: ClerkSettings = ClerkSettings()
    """The source of users, beside the administration service and policy documents."""
    console: ConsoleSettings = ConsoleSettings()
    """The web page of the security team; off by default."""
    streams_share: int = Field(512, ge=1)
    """How many streams of changes one caller may have open in one process."""
    reports_share: int = Field(1_000, ge=1)
    """How many records one caller may report to one process a second."""
    session_cookie: str = Field("__session", pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
    """The cookie with the token: of a request through Envoy, if `Authorization` has none, and of a
    person who signs in to the console."""
    insecure: bool = False
    """Listen beyond loopback although callers do not authenticate, or send keys in clear text."""

    @field_validator("issuers", mode="before")
    @classmethod
    def _issuers_from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return [{"issuer": item} if isinstance(item, str) else item for item in listed(value)]

    @field_validator("issuers")
    @classmethod
    def _is_one_at_least(cls, value: tuple[IssuerSettings, ...]) -> tuple[IssuerSettings, ...]:
        if not value:
            raise ValueError(
                "none is configured; set PDP_ISSUERS to your Clerk Frontend API URL, e.g. "
                "PDP_ISSUERS=https://your-app.clerk.accounts.dev"
            )
        return value

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        issuers = [settings.issuer for settings in self.issuers]
        if len(set(issuers)) != len(issuers):
            raise ValueError("issuers: each may be named once")
        both = development_beside_production(self.issuers)
        if both is not None and not self.allow_development_issuers:
            raise ValueError(
                f"issuers: {both[0]} is a development instance beside {both[1]}, and its users "
                "would be taken for users of production; take one of them away, or set "
                "allow_development_issuers = true"
            )
        require_safe_listening(self.listen, self.callers, self.tls, insecure=self.insecure)
        require_safe_console(self.console, insecure=self.insecure)
        return self
