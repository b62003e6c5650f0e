"""Opens a gRPC channel from a target and credentials."""

import ipaddress
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import grpc

_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    # A DNS TXT record must not change how we retry or balance.
    ("grpc.service_config_disable_resolution", 1),
    # A dead connection is detected within 35 s if it is idle, and within 5 s if it is used.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A channel that replaces a dead one must not reuse its connection.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's defaults of 1 s and 120 s are long compared with a deadline of 250 ms.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A rollout changes the addresses one by one. By default a name is resolved again after 30 s at
    # the earliest, when all known addresses may be gone.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
)
_API_KEY = re.compile(r"[\x21-\x7e]{1,4096}")
_URL = re.compile(r"(https?|grpcs?|h2c?|tcp|tls)://", re.IGNORECASE)
_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract):(?:(//[^/]*)/)?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS to the PDP. Each field is a path (str or Path) to a PEM file, or the PEM itself as
    bytes."""

    ca: str | Path | bytes | None = None
    """The trusted authorities; None: gRPC's default roots."""
    cert: str | Path | bytes | None = None
    """This caller's certificate chain, for mTLS."""
    key: str | Path | bytes | None = field(default=None, repr=False)
    """The private key of `cert`."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("give cert and key together, or neither")


def open_channel(
    target: str, tls: TlsOptions | None, api_key: str | None, *, insecure: bool
) -> grpc.Channel:
    """A channel that balances over all addresses of `target` and connects at its first call.

    Raises:
        ValueError: `target` is a URL, or tokens or the key would cross a network in clear text and
            `insecure` is not set.
        OSError: a PEM file cannot be read.
    """
    url = _URL.match(target)
    if url is not None:
        raise ValueError(
            f"{target} is a URL, and a target is host:port: leave out {url[0]} and any path"
            + "; give tls to use TLS" * (url[0].lower() == "https://" and tls is None)
        )
    if api_key is not None and not _API_KEY.fullmatch(api_key):
        # Checked here and reported without the value: gRPC would repeat it in its own error.
        raise ValueError("api_key must be 1 to 4096 printable ASCII characters without spaces")
    options = (*_OPTIONS, *_authority(target))
    if tls is not None:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_pem(tls.ca),
            private_key=_pem(tls.key),
            certificate_chain=_pem(tls.cert),
        )
        return grpc.secure_channel(target, credentials, options)
    if not insecure and not is_loopback_target(target):
        raise ValueError(
            f"{target} is beyond loopback, tokens and API keys would cross in clear text; "
            "give tls, or say insecure=True"
        )
    # Because of an http_proxy variable, clear text must not leave the loopback either.
    return grpc.insecure_channel(target, (*options, ("grpc.enable_http_proxy", 0)))


def caller_metadata(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """The call metadata that authenticates this caller."""
    return () if api_key is None else (("authorization", f"Bearer {api_key}"),)


def is_loopback_target(target: str) -> bool:
    """Whether every address of a gRPC target is on this machine."""
    matched = _SCHEME.fullmatch(target)
    scheme, addresses = (matched[1], matched[3]) if matched else ("dns", target)
    if scheme.startswith("unix"):
        return True
    return all(_is_loopback_host(_host(address)) for address in addresses.split(","))


def _authority(target: str) -> tuple[tuple[str, str], ...]:
    """The option for the `:authority` of a list of addresses: gRPC would send the whole list, which
    is not an authority (RFC 3986, section 3.2), so strict servers reset it."""
    matched = _SCHEME.fullmatch(target)
    if matched is None or not matched[1].startswith("ipv") or "," not in matched[3]:
        return ()
    return (("grpc.default_authority", matched[3].partition(",")[0]),)


def _host(address: str) -> str:
    """The host of `host:port`, `[v6]:port`, or of either without a port."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def _is_loopback_host(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pem(source: str | Path | bytes | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    if "-----BEGIN" in str(source):
        # Opening the PEM as a path would put a private key into the text of an OSError.
        raise TypeError("PEM text is given as bytes; a str is a path")
    return Path(source).read_bytes()
