"""The console: its port, its address in a browser, and how people sign in."""

import re
from pathlib import Path
from typing import Self

from pydantic import field_validator, model_validator

from pdp.settings.addresses import (
    https_or_loopback,
    is_loopback_address,
    listen_address,
)
from pdp.settings.base import Frozen
from pdp.settings.callers import TlsSettings


class ConsoleSettings(Frozen):
    """The console of the security team; off unless `listen` is set."""

    listen: str | None = None
    """`host:port`."""
    origin: str | None = None
    """Its address in a browser, e.g. `https://console.example.com`. On loopback it follows from
    `listen`."""
    sign_in_url: str | None = None
    """A page of the application where people sign in. It has to return to the console."""
    tls: TlsSettings | None = None
    report_key_file: Path | None = None
    """An Ed25519 private key in PEM that signs the reports of campaigns."""

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        return value and listen_address(value, unix=False)

    @field_validator("origin")
    @classmethod
    def _is_an_origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        https_or_loopback(value)
        if not re.fullmatch(r"https?://[a-z0-9.:\[\]-]+", value):
            raise ValueError("must be a scheme and a lower-case host: https://console.example.com")
        return value

    @field_validator("sign_in_url")
    @classmethod
    def _is_https(cls, value: str | None) -> str | None:
        return value and https_or_loopback(value)

    @model_validator(mode="after")
    def _has_an_origin(self) -> Self:
        if self.listen is not None and self.origin is None:
            if not is_loopback_address(self.listen):
                raise ValueError(
                    f"{self.listen} is beyond loopback: set origin to the address in a browser"
                )
            if self.listen.endswith(":0"):
                raise ValueError("without an origin, listen needs a port of its own")
        return self

    @property
    def address(self) -> str:
        """The origin. Raises ValueError if the console is off and has none."""
        if self.origin is not None:
            return self.origin
        if self.listen is None:
            raise ValueError("there is no console: set console.listen")
        return f"http{'s' if self.tls else ''}://{self.listen}"


def require_safe_console(console: ConsoleSettings, *, insecure: bool) -> None:
    """Raises ValueError if sessions could cross a network in clear text."""
    if console.listen is None or insecure or console.tls is not None:
        return
    if not is_loopback_address(console.listen):
        raise ValueError(
            f"console.listen: {console.listen} is beyond loopback and sessions would cross in "
            "clear; configure console.tls, or say --insecure"
        )
