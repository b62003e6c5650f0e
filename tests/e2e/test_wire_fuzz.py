"""Any bytes, on both ports: no exception is left uncaught, and the process lives.

Few and the same each time in `make test`; many others in `make soak`.
"""

import re
import socket
from collections.abc import Callable
from contextlib import suppress

import hpack
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit import soak
from tests.kit.school import ask, reason_of
from tests.kit.server import ServerProcess, Stubs
from tests.kit.wire.http2 import PREFACE, frame, message, request_headers, settings

READ_SECONDS = 0.02

streams = st.one_of(st.integers(0, 9), st.integers(0, 2**31 - 1))
payloads = st.one_of(st.binary(max_size=64), st.binary(min_size=4, max_size=4))
odd_frames = st.builds(frame, st.integers(0, 12), st.integers(0, 255), streams, payloads)
lying_frames = st.builds(
    lambda sent, length: length.to_bytes(3, "big") + sent[3:], odd_frames, st.integers(0, 2**24 - 1)
)
# Headers of two kinds: those that pass the server, so that the application sees them, and any.
TELLING = {
    "content-type": ["application/json", "application/proto", "application/grpc+proto", "text/x"],
    "content-encoding": ["gzip", "identity", "br", ""],
    "grpc-encoding": ["gzip", "identity", "br", ""],
    "grpc-timeout": ["1n", "99999999H", "x", "1S"],
    "connect-timeout-ms": ["0", "1", "-1", "99999999999"],
    "authorization": ["Bearer x", "Bearer", ""],
    "origin": ["null", "http://127.0.0.1"],
    "x-bin": ["%%%", "AAAA"],
    "svix-id": ["msg_00000000", ""],
}
telling = st.sampled_from([(name, value) for name in TELLING for value in TELLING[name]])
odd = st.tuples(
    st.one_of(
        st.sampled_from(
            [
                *(":path", ":method", ":scheme", ":authority", ":protocol", "te", "host"),
                *("content-length", "connection", "transfer-encoding", "expect", "upgrade"),
            ]
        ),
        st.text(max_size=8),
    ),
    st.one_of(
        st.sampled_from(["POST", "CONNECT", "websocket", "h2c", "chunked", "/", "-1", "5"]),
        st.text(max_size=12),
    ),
)
paths = st.sampled_from(
    [
        "/pdpapi.v1.PolicyDecisionService/Check",
        "/pdpapi.v1.PolicyDecisionService/BatchCheck",
        "/pdpapi.v1.AccessQueryService/ListAllowedPermissions",
        "/pdpapi.v1.AccessQueryService/ListAllowedResources",
        "/pdpapi.v1.AccessQueryService/ListAllowedActors",
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


Part = Callable[[int], bytes]
"""The bytes to send, for an unused stream number."""


@st.composite
def requests(draw: st.DrawFn) -> Part:
    """One that is nearly right."""
    chosen = dict(draw(st.lists(telling, max_size=3)))
    headers = [h for h in request_headers(draw(paths)) if h[0] not in chosen] + [*chosen.items()]
    if draw(st.integers(0, 3)) == 0:
        headers.insert(draw(st.integers(0, len(headers))), draw(odd))
    if draw(st.integers(0, 7)) == 0:
        del headers[draw(st.integers(0, len(headers) - 1))]
    block = hpack.Encoder().encode(headers)
    parts = draw(st.lists(bodies, max_size=3))
    ends = 0 if parts else draw(st.integers(0, 1))
    cut = draw(st.integers(0, len(block)))
    last = draw(st.integers(0, 1))

    def at(stream: int) -> bytes:
        head = frame(0x1, ends, stream, block[:cut]) + frame(0x9, 0x4, stream, block[cut:])
        data = [frame(0x0, 0, stream, part) for part in parts[:-1]]
        data += [frame(0x0, last, stream, part) for part in parts[-1:]]
        return head + b"".join(data)

    return at


http1 = st.builds(
    lambda verb, path, lines, body: (
        f"{verb} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode("utf-8", "replace")
        + body
    ),
    st.sampled_from(["GET", "POST", "OPTIONS", "HEAD", "PRI", "CONNECT"]),
    paths,
    st.lists(
        st.one_of(telling, telling, odd).map(lambda header: "{}: {}\r\n".format(*header)),
        max_size=4,
    ).map("".join),
    bodies,
)
noise = st.one_of(odd_frames, lying_frames, st.binary(max_size=32)).map(lambda raw: lambda _: raw)
http2 = st.builds(
    lambda values, parts: (
        PREFACE + settings(values) + b"".join(part(2 * i + 1) for i, part in enumerate(parts))
    ),
    st.lists(st.sampled_from([(1, 0), (2, 0), (4, 0), (4, 2**31 - 1), (5, 2**14), (9, 9)])),
    st.one_of(
        st.lists(requests(), min_size=1, max_size=4),
        st.lists(requests(), min_size=1, max_size=4),
        st.lists(st.one_of(requests(), noise), max_size=6),
        st.lists(noise, max_size=6),
    ),
)
anything = st.one_of(http2, http2, http1, st.binary(max_size=200), st.just(PREFACE))


LEFT = re.compile(
    r'"level":"error","event":"failed","pid":\d+,"subject":"request",'
    r'"detail":"(stream channel|connection writer) was closed"'
)
"""An error that h2corn logs itself: the peer left while a response was written."""


@pytest.mark.soak
@hypothesis_settings(
    max_examples=soak.count(20_000, sample=120),
    derandomize=not soak.SOAK,
    database=None,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
@given(data=anything)
def test_no_bytes_reach_anything_that_is_not_ready_for_them(
    server: ServerProcess, stubs: Stubs, data: bytes
) -> None:
    for port in (server.port, server.http_port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as peer, suppress(OSError):
            peer.sendall(data)
            peer.settimeout(READ_SECONDS)
            while peer.recv(65536):  # until nothing more comes
                pass
    assert reason_of(ask(stubs, "user_ivan", "course:edit")) == "ALLOWED_BY_RULE"
    log = LEFT.sub("", server.log())
    assert not re.search(r'Traceback|panicked|"level": ?"(error|critical)"', log), data
