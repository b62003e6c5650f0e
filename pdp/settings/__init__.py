"""Frozen settings objects, read once from variables or a TOML file. No other package reads the
environment. Secure by default: a server without an issuer, or a sidecar without an upstream, does
not start.
"""

from pdp.settings.addresses import is_loopback, is_loopback_address, socket_address
from pdp.settings.audit_tree import AuditTreeSettings
from pdp.settings.callers import ALL_CAPABILITIES, CallerSettings, Capability, TlsSettings
from pdp.settings.checks import check_certificate, check_free, check_tls
from pdp.settings.clerk import ClerkSettings, webhook_secret_problem
from pdp.settings.console import ConsoleSettings
from pdp.settings.forward import ForwardSettings, HttpDestinationSettings
from pdp.settings.issuers import (
    IssuerSettings,
    development_beside_production,
    is_development,
)
from pdp.settings.origins import Setting, settings_in_effect
from pdp.settings.programs import PROGRAMS, variable_problems
from pdp.settings.server import DatabaseSettings, RetentionSettings, Settings
from pdp.settings.sidecar import SidecarSettings

__all__ = [
    "ALL_CAPABILITIES",
    "PROGRAMS",
    "AuditTreeSettings",
    "CallerSettings",
    "Capability",
    "ClerkSettings",
    "ConsoleSettings",
    "DatabaseSettings",
    "ForwardSettings",
    "HttpDestinationSettings",
    "IssuerSettings",
    "RetentionSettings",
    "Setting",
    "Settings",
    "SidecarSettings",
    "TlsSettings",
    "check_certificate",
    "check_free",
    "check_tls",
    "development_beside_production",
    "is_development",
    "is_loopback",
    "is_loopback_address",
    "settings_in_effect",
    "socket_address",
    "variable_problems",
    "webhook_secret_problem",
]
