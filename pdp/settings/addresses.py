"""Addresses to listen on, URLs for requests, and which of them are on this machine."""

import ipaddress
import socket
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator

LOOPBACK_NAMES = frozenset(("localhost",))
PORTS = 65_536


def https_or_loopback(url: str) -> str:
    """The URL itself, if requests to it are confidential. Raises ValueError if not."""
    parts = urlsplit(url)
    loopback = is_loopback(parts.hostname or "")
    if not (parts.scheme == "https" or (parts.scheme == "http" and loopback)):
        raise ValueError("must be an https:// URL (http:// on loopback only)")
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("must be a plain URL with a host")
    return url


ConfidentialUrl = Annotated[str, AfterValidator(https_or_loopback)]


def is_loopback(host: str) -> bool:
    """Whether a host name or address is on this machine."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_loopback_address(address: str) -> bool:
    """Whether only this machine can reach `host:port` or `unix:...`."""
    return address.startswith("unix:") or is_loopback(address.rpartition(":")[0])


def socket_address(listen: str) -> tuple[socket.AddressFamily, Any]:
    """The family and address of `host:port` or `unix:path`."""
    if listen.startswith("unix:"):
        return socket.AF_UNIX, listen.removeprefix("unix:").removeprefix("//")
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, int(port))


def listen_address(text: str, *, unix: bool) -> str:
    """The text itself, if it is `host:port`, or with `unix` also `unix:path`.

    Raises:
        ValueError: It is not.
    """
    host, _, port = text.rpartition(":")
    plain = host and "/" not in host and port.isdecimal() and int(port) < PORTS
    if plain or (unix and text.startswith("unix:")):
        return text
    raise ValueError("must be host:port" + ", or unix:PATH" * unix)
