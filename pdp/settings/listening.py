"""The settings that a server and a sidecar have in common."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from pdp.settings.addresses import ConfidentialUrl, listen_address
from pdp.settings.audit_tree import AuditTreeSettings
from pdp.settings.base import Loaded
from pdp.settings.callers import CallerSettings, TlsSettings


class ListeningSettings(Loaded):
    """Of a program that answers RPCs and keeps a decision log."""

    listen: str
    http_listen: str
    threads: int = Field(32, ge=1, le=1024)
    tls: TlsSettings | None = None
    callers: tuple[CallerSettings, ...] = ()
    """Empty: every caller is `anonymous` and may do everything, on loopback only."""
    shutdown_seconds: float = Field(10, ge=0, allow_inf_nan=False)

    audit_share_bytes_per_second: int = Field(1 << 20, ge=1)
    """Bytes per second that the denials of one caller may add to the audit log of a process."""
    audit_share_burst_bytes: int = Field(16 << 20, ge=1)
    """Bytes that they may add at once."""
    audit_tree: AuditTreeSettings | None = None
    """None: there is no tree over the decision log."""

    traces_url: ConfidentialUrl | None = None
    """Receives OpenTelemetry spans, in OTLP over HTTP. None: there are none. Needs the extra
    `traces`."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator("listen", "http_listen")
    @classmethod
    def _is_an_address(cls, value: str, info: ValidationInfo) -> str:
        return listen_address(value, unix=info.field_name == "listen")
