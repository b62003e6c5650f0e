"""The connection of a guard: its targets, TLS and keys."""

from pathlib import Path

import grpc
import pytest
from pdp_client import Guard, PdpUnavailable, TlsOptions
from pdp_client.transport import is_loopback_target

from clients.python.tests.kit.answerer import Answerer, serve
from clients.python.tests.kit.certificates import Authority

TOKEN = "a.b.c"


def test_the_api_key_is_sent_as_the_callers_bearer_credential(answerer: Answerer):
    with Guard(answerer.address, api_key="k" * 40, deadline_seconds=10) as guard:
        guard.check(TOKEN, "course:edit")
    assert answerer.metadata[0]["authorization"] == "Bearer " + "k" * 40


def test_without_an_api_key_no_credential_is_sent(answerer: Answerer, guard: Guard):
    guard.check(TOKEN, "course:edit")
    assert "authorization" not in answerer.metadata[0]


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ü" * 20, "k\x00k", "k" * 4097])
def test_an_api_key_that_is_not_one_is_refused_and_not_repeated(key: str):
    with pytest.raises(ValueError, match="api_key must be") as raised:
        Guard("127.0.0.1:50051", api_key=key)
    assert not key or key not in str(raised.value)


LOOPBACK = [
    "127.0.0.1:50051",
    "127.8.9.1",
    "localhost:50051",
    "localhost",
    "[::1]:50051",
    "dns:///localhost:50051",
    "dns:localhost:50051",
    "ipv4:127.0.0.1:1,127.0.0.2:2",
    "ipv6:[::1]:1",
    "unix:/run/pdp.sock",
    "unix:///run/pdp.sock",
    "unix-abstract:pdp",
]
BEYOND = [
    "pdp.internal:50051",
    "10.0.0.1:50051",
    "dns:///pdp.internal:50051",
    "dns://127.0.0.1/pdp.internal:50051",
    "ipv4:127.0.0.1:1,10.0.0.1:2",
    "ipv6:[2001:db8::1]:1",
    "localhost.example.com:1",
    "127.0.0.1.example.com:1",
    "0.0.0.0:50051",
    "xds:///localhost",
    "http://localhost:50051",
    "LOCALHOST@example.com:1",
    "",
]


@pytest.mark.parametrize("target", LOOPBACK)
def test_clear_text_stays_on_the_loopback(target: str):
    assert is_loopback_target(target)
    Guard(target, api_key="key").close()


@pytest.mark.parametrize("target", BEYOND)
@pytest.mark.parametrize("key", [None, "key"])
def test_clear_text_beyond_loopback_is_refused(target: str, key: str | None):
    with pytest.raises(ValueError, match=r"clear text|is a URL"):
        Guard(target, api_key=key)


def test_clear_text_beyond_loopback_needs_an_option():
    Guard("dns:///pdp.internal:50051", api_key="key", insecure=True).close()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_guard_without_a_deadline_is_refused(seconds: float):
    with pytest.raises(ValueError, match="deadline_seconds"):
        Guard("127.0.0.1:50051", deadline_seconds=seconds)


def test_mutual_tls_works_with_paths_and_with_bytes(tmp_path: Path):
    authority = Authority("test")
    ours, theirs = authority.issue("guard"), authority.issue("pdp")
    one = Answerer()
    credentials = grpc.ssl_server_credentials(
        [(theirs.key, theirs.cert)], root_certificates=authority.cert, require_client_auth=True
    )
    server = serve(one, "127.0.0.1:0", credentials)
    files = {"ca": authority.cert, "cert": ours.cert, "key": ours.key}
    for name, pem in files.items():
        (tmp_path / name).write_bytes(pem)
    options = [
        TlsOptions(**files),
        TlsOptions(**{name: tmp_path / name for name in files}),
        TlsOptions(**{name: str(tmp_path / name) for name in files}),
    ]
    try:
        for tls in options:
            with Guard(one.address, tls=tls, api_key="key", deadline_seconds=10) as guard:
                assert guard.check(TOKEN, "course:edit").allowed is True
        stranger = Authority("stranger")
        refused = [
            TlsOptions(ca=authority.cert),  # no certificate of our own
            TlsOptions(ca=stranger.cert, cert=ours.cert, key=ours.key),  # not their authority
        ]
        for tls in refused:
            with (
                Guard(one.address, tls=tls, deadline_seconds=1) as guard,
                pytest.raises(PdpUnavailable),
            ):
                guard.check(TOKEN, "course:edit")
    finally:
        server.stop(None).wait()


def test_half_a_client_certificate_is_refused():
    with pytest.raises(ValueError, match="together"):
        TlsOptions(cert=b"x")
    with pytest.raises(ValueError, match="together"):
        TlsOptions(key=b"x")


def test_a_private_key_is_shown_nowhere():
    issued = Authority("test").issue("guard")
    assert "PRIVATE" not in repr(TlsOptions(cert=issued.cert, key=issued.key))
    with pytest.raises(TypeError, match="a str is a path") as raised:
        Guard("127.0.0.1:1", tls=TlsOptions(cert=issued.cert, key=issued.key.decode()))
    assert issued.key.decode().splitlines()[1] not in str(raised.value)


def test_a_pem_file_that_is_not_there_is_an_error_at_once(tmp_path: Path):
    with pytest.raises(OSError, match="absent"):
        Guard("127.0.0.1:1", tls=TlsOptions(ca=tmp_path / "absent"))
