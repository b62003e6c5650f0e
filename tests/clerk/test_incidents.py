"""Incidents of other receivers of webhooks, each as a test of this one."""

import base64
import gzip
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.clerk.webhooks.signatures import verify
from pdp.database.engine import open_engine
from pdp.database.migrations import migrate
from pdp.http import bounded_post
from tests.kit.clerk import events as clerk
from tests.kit.clerk.events import OTHER_SECRET, SECRET, event, signature, signed
from tests.kit.clerk.webhook_endpoints import Endpoint, exchange, running_endpoint

BODY = event("user.created", clerk.user("user_mallory"))
MESSAGE = "msg_0123456789abcdef"
Headers = list[tuple[str, str]]
CUT_OFF_OR = {status: (0, status) for status in (400, 413, 431)}
"""A client that keeps sending after the answer may lose it to a reset of the connection."""


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Endpoint, Endpoint]]:
    """The endpoints of two instances of Clerk, each with its own secret and database."""
    directory = tmp_path_factory.mktemp("endpoints")
    a, b = (open_endpoint_database(directory / f"{name}.db") for name in ("a", "b"))
    with (
        running_endpoint(a) as endpoint_a,
        running_endpoint(b, secrets=(OTHER_SECRET,), instance_id="ins_b") as endpoint_b,
    ):
        yield endpoint_a, endpoint_b
    for engine in (a, b):
        engine.dispose()


def start() -> bytes:
    """The beginning of a request whose headers are right."""
    lines = [f"{name}: {value}" for name, value in headers()]
    first = [f"POST {clerk.PATH} HTTP/1.1", "Host: pdp", f"Content-Length: {len(BODY)}"]
    return "\r\n".join([*first, *lines, "", ""]).encode()


def open_endpoint_database(file: Path):
    url = f"sqlite:///{file}"
    migrate(url)
    return open_engine(url)


@pytest.fixture
def endpoint(endpoints: tuple[Endpoint, Endpoint]) -> Iterator[Endpoint]:
    """One whose database a test must leave as it is."""
    before = endpoints[0].everything()
    yield endpoints[0]
    assert endpoints[0].everything() == before


def headers(*, body: bytes = BODY, **changes: str | None) -> Headers:
    """Good headers of a body; `id`, `timestamp` and `signature` may be replaced, or left out."""
    replaced = {**signed(body, message_id=MESSAGE)}
    replaced |= {f"svix-{name}": value for name, value in changes.items()}
    return [(name, value) for name, value in replaced.items() if value is not None]


def mac_of(given_headers: Headers) -> bytes:
    return base64.b64decode(dict(given_headers)["svix-signature"].removeprefix("v1,"))


def v1(mac: bytes) -> str:
    return "v1," + base64.b64encode(mac).decode()


def test_w1_no_part_of_a_signature_is_a_signature(endpoint: Endpoint) -> None:
    """CVE-2024-21491 (Svix for Rust): signatures were compared up to the shorter one's end, so that
    an empty one was always right."""
    good = headers()
    mac = mac_of(good)
    wrong = [v1(mac[:length]) for length in range(32)]
    wrong += [v1(mac + b"\0"), v1(mac[1:]), v1(mac[:31] + bytes([mac[31] ^ 1]))]
    wrong += [
        "v1",
        "v1a,",
        "v2,",
        "",
        v1(mac).replace("v1,", "v2,"),
        v1(mac).replace("v1,", "v1a,"),
    ]
    wrong += [v1(mac).replace("v1,", "V1,"), v1(mac).removeprefix("v1,")]
    for signatures in wrong:
        status, text = endpoint.post(headers(signature=signatures), BODY)
        assert (status, text) == (400, "signature_wrong\n"), signatures
    assert endpoint.post(headers(signature=None), BODY) == (400, "header_missing\n")


def test_w1_the_header_is_bounded(endpoint: Endpoint) -> None:
    good = dict(headers())["svix-signature"]
    nine = " ".join(["v1,AAAA"] * 8 + [good])
    assert endpoint.post(headers(signature=nine), BODY) == (400, "too_many_signatures\n")
    long = good + " " * 4_096
    assert endpoint.post(headers(signature=f"{long}."), BODY) == (400, "header_too_long\n")
    endless = " ".join([good] * 10_000)
    assert endpoint.post(headers(signature=endless), BODY)[0] in CUT_OFF_OR[431]


@pytest.mark.parametrize(
    "signatures",
    ["v1", "v1,a,b", "v1,a", "v1,=", "v1,====", "v1,\xff", ",", ",,", "  ", "v1, v1,", "garbage"],
)
def test_w2_what_makes_a_library_raise_is_refused(
    endpoint: Endpoint, signatures: str, caplog: pytest.LogCaptureFixture
) -> None:
    """standardwebhooks 1.1.0 raises ValueError, binascii.Error or UnicodeDecodeError on these, and
    not the error that its documentation names: receivers answered 500."""
    assert endpoint.post(headers(signature=signatures), BODY)[0] == 400
    assert not caplog.records


def test_w2_a_body_that_is_not_utf8_is_refused(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    body = BODY + b"\xff\xfe"
    assert endpoint.post(headers(body=body), body) == (400, "body_not_utf8\n")
    assert not caplog.records


@pytest.mark.parametrize(
    "id_",
    ["", "msg_short", "msg_" + "a" * 65, f"{MESSAGE}.1", 'msg_{"a":1}xxxxx', f"{MESSAGE}é", "x"],
)
def test_w3_an_id_that_could_be_read_otherwise_is_refused(endpoint: Endpoint, id_: str) -> None:
    """The signed text is id.timestamp.body, without lengths: a dot in the id moves the borders."""
    now = dict(headers())["svix-timestamp"]
    mac = signature(BODY, id_, now)
    assert endpoint.post(headers(id=id_, signature=mac), BODY) == (400, "id_malformed\n")


def test_w3_a_body_cannot_be_moved_into_the_id(endpoint: Endpoint) -> None:
    now = dict(headers())["svix-timestamp"]
    inner = b"%s.%s" % (now.encode(), BODY)
    outer = headers(body=inner)  # signed: MESSAGE.now.now.BODY
    moved = [("svix-id", f"{MESSAGE}.{now}"), *outer[1:]]
    assert endpoint.post(moved, BODY) == (400, "id_malformed\n")


@pytest.mark.parametrize(
    "spelling",
    [
        "{}.5",
        "{}.0",
        "{}e0",
        "0{}",
        "+{}",
        "-{}",
        "{:_}",
        "nan",
        "inf",
        "1e9",
        "0x6AB13B80",
        "\u0661" * 10,
    ],
)
def test_w3_a_timestamp_is_ten_digits(endpoint: Endpoint, spelling: str) -> None:
    """The library takes what `float` takes, and signs the floor of it."""
    now = int(dict(headers())["svix-timestamp"])
    spelled = spelling.format(now)
    mac = signature(BODY, MESSAGE, str(now))
    given_headers = [("svix-id", MESSAGE), ("svix-timestamp", spelled), ("svix-signature", mac)]
    assert verify(given_headers, BODY, [SECRET], now) != MESSAGE
    if spelled.isascii():
        answer = endpoint.post(given_headers, BODY)
        assert answer == (400, "timestamp_malformed\n")


def test_w5_the_bytes_are_verified_as_they_came(endpoints: tuple[Endpoint, Endpoint]) -> None:
    """Receivers that parse and serialise again before they verify refuse what is good, and verify
    what nobody sent."""
    endpoint = endpoints[0]
    odd = BODY.replace(b'{"object"', b' {\n\t"object"').replace(b"user_mallory", b"us\\u0065r_w5")
    assert json.loads(odd)["data"]["id"] == "user_w5"
    assert endpoint.deliver(odd) == (200, "applied\n")
    before = endpoint.everything()
    again = json.dumps(json.loads(odd)).encode()
    assert endpoint.deliver(again, signed(odd)) == (400, "signature_wrong\n")
    assert endpoint.everything() == before


@given(st.data())
def test_w5_no_other_spelling_of_the_same_json_is_signed(data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([n for n, byte in enumerate(BODY) if byte in b" {}:,"]))
    blank = data.draw(st.sampled_from([b" ", b"\n", b"\t", b"\r"]))
    respelled = BODY[:place] + blank + BODY[place:]
    now = 1_790_000_000
    given_headers = list(signed(BODY, message_id=MESSAGE, now=now).items())
    assert verify(given_headers, respelled, [SECRET], now) != MESSAGE


def test_w6_a_body_past_the_bound_is_refused_whatever_its_headers_say(endpoint: Endpoint) -> None:
    large = b" " * (10 * 1024 * 1024)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers(body=large))
    start = f"POST {clerk.PATH} HTTP/1.1\r\nHost: pdp\r\n{head}"
    head = f"{start}Content-Length: {len(large)}\r\n\r\n".encode()
    assert exchange(endpoint.port, head)[0] == 413
    assert exchange(endpoint.port, head + large)[0] in CUT_OFF_OR[413]
    most = bounded_post.BODY_BYTES_MAX
    chunk = f"{start}Transfer-Encoding: chunked\r\n\r\n{len(large):x}\r\n".encode()
    assert exchange(endpoint.port, chunk + large[: most + 1])[0] == 413
    assert exchange(endpoint.port, chunk + large)[0] in CUT_OFF_OR[413]


def test_w6_what_is_past_the_length_is_another_request(endpoint: Endpoint) -> None:
    start = f"POST {clerk.PATH} HTTP/1.1\r\nHost: pdp\r\nContent-Length: 5\r\n"
    head = "".join(f"{name}: {value}\r\n" for name, value in headers())
    assert exchange(endpoint.port, f"{start}{head}\r\n".encode() + BODY) == (
        400,
        "signature_wrong\n",
    )


def test_w6_a_body_of_exactly_the_bound_is_read(endpoint: Endpoint) -> None:
    body = BODY + b" " * (bounded_post.BODY_BYTES_MAX - len(BODY))
    assert endpoint.deliver(body, signed(body, secret=OTHER_SECRET)) == (400, "signature_wrong\n")
    assert endpoint.post(headers(body=body), body + b" ")[0] in CUT_OFF_OR[413]


def test_w6_a_compressed_body_is_refused_unread(endpoint: Endpoint) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    for encoding in ("gzip", "GZIP", "br", "deflate, gzip", "x"):
        sent = [*headers(body=bomb), ("Content-Encoding", encoding)]
        assert endpoint.post(sent, bomb) == (415, "encoded\n")
    with_gzip = [*headers(), ("Content-Encoding", "gzip")]
    assert endpoint.post(with_gzip, gzip.compress(BODY)) == (415, "encoded\n")


def test_w6_a_slow_body_is_cut_off(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_post, "BODY_SECONDS_MAX", 0.3)
    assert exchange(endpoint.port, start() + BODY[:-1]) == (408, "too_slow\n")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"svix-id": None}, "header_missing"),
        ({"svix-id": "x"}, "id_malformed"),
        ({"svix-timestamp": "x"}, "timestamp_malformed"),
        ({"svix-timestamp": "1614265330"}, "timestamp_out_of_tolerance"),
        ({"svix-signature": "x" * 5_000}, "header_too_long"),
        ({"svix-signature": "v1,x " * 9}, "too_many_signatures"),
    ],
)
def test_w6_what_its_headers_condemn_is_refused_without_its_body(
    endpoint: Endpoint, changes: dict[str, str | None], wanted: str
) -> None:
    sent = {**dict(headers()), "Content-Length": "9", **changes}
    lines = [f"{name}: {value}" for name, value in sent.items() if value is not None]
    start = "\r\n".join([f"POST {clerk.PATH} HTTP/1.1", "Host: pdp", *lines, "", ""])
    assert exchange(endpoint.port, start.encode()) == (400, f"{wanted}\n")
    repeated = start.replace("Host: pdp", "Host: pdp\r\nsvix-id: msg_00000000", 1)
    if "svix-id" not in changes:
        assert exchange(endpoint.port, repeated.encode()) == (400, "header_repeated\n")


def test_w7_a_message_for_another_endpoint_is_refused(
    endpoints: tuple[Endpoint, Endpoint],
) -> None:
    a, b = endpoints
    before = b.everything()
    assert b.deliver(BODY, signed(BODY)) == (400, "signature_wrong\n")
    # Two endpoints may share a secret by mistake: the instance still distinguishes them.
    assert b.deliver(BODY, signed(BODY, secret=OTHER_SECRET)) == (400, "other_instance\n")
    assert b.everything() == before
    body = event("user.created", clerk.user("user_b"), instance_id="ins_b")
    assert b.deliver(body, signed(body, secret=OTHER_SECRET)) == (200, "applied\n")
    assert a.deliver(body, signed(body)) == (400, "other_instance\n")


def test_w8_while_a_secret_is_replaced_both_are_taken_and_afterwards_the_old_one_is_not() -> None:
    now = 1_790_000_000

    def taken(signed_with: Sequence[str], secrets: Sequence[str]) -> bool:
        macs = " ".join(signature(BODY, MESSAGE, str(now), secret) for secret in signed_with)
        given_headers = [
            ("svix-id", MESSAGE),
            ("svix-timestamp", str(now)),
            ("svix-signature", macs),
        ]
        return verify(given_headers, BODY, secrets, now) == MESSAGE

    old, new = SECRET, OTHER_SECRET
    for signed_with in ([old], [new], [old, new], [new, old]):
        assert taken(signed_with, [old, new])
        assert taken(signed_with, [new, old])
        assert taken(signed_with, [new]) == (new in signed_with)
        assert taken(signed_with, [old]) == (old in signed_with)


def test_bodies_that_never_end_keep_neither_probes_nor_messages_out(endpoint: Endpoint) -> None:
    """Their headers look right, as anybody can make them. One more than there are places takes the
    place of the oldest."""
    answers: list[tuple[int, str]] = []
    senders = [
        threading.Thread(target=lambda: answers.append(exchange(endpoint.port, start())))
        for _ in range(bounded_post.READING_MAX + 10)
    ]
    for sender in senders:
        sender.start()
    for _ in range(20):
        assert endpoint.deliver(event("email.created", {})) == (200, "ignored\n")
        assert exchange(endpoint.port, b"GET /healthz HTTP/1.1\r\nHost: pdp\r\n\r\n")[0] == 200
    for sender in senders:
        sender.join()
    # If a body stops arriving, the server itself closes the connection after 5 seconds.
    assert set(answers) <= {(408, "too_slow\n"), (0, "")}
    assert answers.count((408, "too_slow\n")) >= 10
