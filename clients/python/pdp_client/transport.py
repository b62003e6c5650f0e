"""From a target and credentials to a gRPC channel."""

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
    # A connection that died in silence is found within 35 s when idle, 5 s when it is used.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A channel that replaces one whose connection is dead must not come by that connection.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's own 1 s and 120 s are long beside a deadline of 250 ms.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A rollout changes one address after the other; by default a name is looked up again after
    # 30 s at the earliest, when the addresses that were known may all be gone.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
)
_API_KEY = re.compile(r"[\x21-\x7e]{1,4096}")
_URL = re.compile(r"(https?|grpcs?|h2c?|tcp|tls)://", re.IGNORECASE)
_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract):(?:(//[^/]*)/)?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS to the PDP. Each is a path (str or Path) to a PEM file, or the PEM itself as bytes."""

    ca: str | Path | bytes | None = None
    """Authorities to trust; None: gRPC's default roots."""
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
    """A channel that balances over all addresses of `target` and connects on its first call.

    Raises ValueError if `target` is a URL, or if tokens or the key would cross a network in clear
    text and `insecure` is not set; OSError if a PEM file cannot be read.
    """
    url = _URL.match(target)
    if url is not None:
        raise ValueError(
            f"{target} is a URL, and a target is host:port: leave out {url[0]} and any path"
            + "; give tls to use TLS" * (url[0].lower() == "https://" and tls is None)
        )
    if api_key is not None and not _API_KEY.fullmatch(api_key):
        # Said here and without the value: gRPC would repeat it in its own error.
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
    # An http_proxy variable must not carry clear text away from the loopback either.
    return grpc.insecure_channel(target, (*options, ("grpc.enable_http_proxy", 0)))


def caller_metadata(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """The call metadata by which this caller proves who it is."""
    return () if api_key is None else (("authorization", f"Bearer {api_key}"),)


def is_loopback_target(target: str) -> bool:
    """Whether every address of a gRPC target is this machine's own."""
    matched = _SCHEME.fullmatch(target)
    scheme, addresses = (matched[1], matched[3]) if matched else ("dns", target)
    if scheme.startswith("unix"):
        return True
    return all(_is_loopback_host(_host(one)) for one in addresses.split(","))


def _authority(target: str) -> tuple[tuple[str, str], ...]:
    """The option for the `:authority` of a list of addresses: gRPC would send the whole list, which
    is no authority (RFC 3986, section 3.2) and which strict servers reset."""
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
        # Opening it as a path would put a private key into the text of an OSError.
        raise TypeError("PEM text is given as bytes; a str is a path")
    return Path(source).read_bytes()
