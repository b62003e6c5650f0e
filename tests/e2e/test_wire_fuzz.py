"""Any bytes, on both ports: no exception is left uncaught, and the process lives.

Short and the same each time; `make soak` runs FUZZ_EXAMPLES other ones.
"""

import os
import re
import socket
from contextlib import suppress

import hpack
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.e2e.test_check import ask, reason_of
from tests.kit.http2 import PREFACE, frame, message, request_headers, settings
from tests.kit.server import ServerProcess, Stubs

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
READ_SECONDS = 0.02

streams = st.one_of(st.integers(0, 9), st.integers(0, 2**31 - 1))
payloads = st.one_of(st.binary(max_size=64), st.binary(min_size=4, max_size=4))
odd_frames = st.builds(frame, st.integers(0, 12), st.integers(0, 255), streams, payloads)
lying_frames = st.builds(
    lambda sent, length: length.to_bytes(3, "big") + sent[3:], odd_frames, st.integers(0, 2**24 - 1)
)
names = st.one_of(
    st.sampled_from(
        [
            *(":path", ":method", ":scheme", ":authority", ":protocol", "content-type", "te"),
            *("host", "content-length", "grpc-timeout", "grpc-encoding", "authorization", "origin"),
            *("connection", "transfer-encoding", "expect", "x-bin", "content-encoding"),
        ]
    ),
    st.text(max_size=8),
)
values = st.one_of(
    st.sampled_from(
        [
            *("POST", "CONNECT", "websocket", "1n", "99999999H", "gzip", "-1", "chunked", "/"),
            *(
                "application/json",
                "application/proto",
                "application/grpc",
                "application/grpc+proto",
            ),
        ]
    ),
    st.text(max_size=12),
)
paths = st.sampled_from(
    [
        "/pdpapi.v1.PolicyDecisionService/Check",
        "/pdpapi.v1.PolicyDecisionService/BatchCheck",
        "/pdpapi.v1.PolicyAdministrationService/ListRoles",
        "/pdpapi.v1.ChangeService/Watch",
        "/envoy.service.auth.v3.Authorization/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/webhooks/clerk",
        "/metrics",
    ]
)
bodies = st.one_of(
    st.binary(max_size=64),
    st.binary(max_size=64).map(message),
    st.builds(
        lambda data, place, byte: data[:place] + bytes([byte]) + data[place + 1 :],
        st.just(message(CheckRequest(actor_token="x", permission="a:b").SerializeToString())),
        st.integers(0, 12),
        st.integers(0, 255),
    ),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One that is nearly right."""
    stream = draw(st.integers(0, 5)) * 2 + 1
    headers = request_headers(draw(paths))
    for _ in range(draw(st.integers(0, 3))):
        headers.insert(draw(st.integers(0, len(headers))), (draw(names), draw(values)))
    if draw(st.booleans()):
        del headers[draw(st.integers(0, len(headers) - 1))]
    block = hpack.Encoder().encode(headers)
    ends = draw(st.integers(0, 1))
    cut = draw(st.integers(0, len(block)))
    sent = draw(
        st.sampled_from(
            [
                frame(0x1, 0x4 | ends, stream, block),
                frame(0x1, ends, stream, block[:cut]) + frame(0x9, 0x4, stream, block[cut:]),
            ]
        )
    )
    return sent + b"".join(
        frame(0x0, draw(st.integers(0, 1)), stream, body)
        for body in draw(st.lists(bodies, max_size=3))
    )


http1 = st.builds(
    lambda verb, path, lines, body: (
        f"{verb} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode("utf-8", "replace")
        + body
    ),
    st.sampled_from(["GET", "POST", "OPTIONS", "HEAD", "PRI", "CONNECT"]),
    paths,
    st.lists(st.builds("{}: {}\r\n".format, names, values), max_size=4).map("".join),
    bodies,
)
http2 = st.builds(
    lambda start, parts: start + b"".join(parts),
    st.sampled_from([PREFACE + settings(), PREFACE, PREFACE + settings(((1, 0), (4, 0), (5, 1)))]),
    st.lists(st.one_of(requests(), odd_frames, lying_frames, st.binary(max_size=32)), max_size=6),
)


@hypothesis_settings(
    max_examples=EXAMPLES or 120,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
@given(data=st.one_of(http2, http1, st.binary(max_size=200)))
def test_no_bytes_reach_anything_that_is_not_ready_for_them(
    server: ServerProcess, stubs: Stubs, data: bytes
) -> None:
    for port in (server.port, server.http_port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as peer, suppress(OSError):
            peer.sendall(data)
            peer.settimeout(READ_SECONDS)
            peer.recv(65536)
    assert reason_of(ask(stubs, "user_ivan", "course:edit")) == "ALLOWED_BY_RULE"
    log = server.log()
    assert not re.search(r'Traceback|panicked|"level": ?"(error|critical)"', log), data
