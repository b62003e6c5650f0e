"""Signatures of webhook messages: what is believed, and that nothing raises."""

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pdp.clerk.webhooks.signatures import (
    HEADER_CHARACTERS_MAX,
    Refusal,
    check_body,
    check_headers,
    verify,
)
from tests.kit.clerk.events import OTHER_SECRET, SECRET, event, signature, signed, user

NOW = 1_790_000_000
BODY = event("user.updated", user())
MESSAGE = "msg_0123456789abcdefABCDEF"
R = Refusal


def headers(**changes: str | None) -> list[tuple[str, str]]:
    """Good headers of `BODY`; `id`, `timestamp` and `signature` may be replaced, or left out by
    None."""
    good = signed(BODY, message_id=MESSAGE, now=NOW)
    replaced = {**good, **{f"svix-{name}": value for name, value in changes.items()}}
    return [(name, value) for name, value in replaced.items() if value is not None]


def verdict(
    given: list[tuple[str, str]],
    *,
    body: bytes = BODY,
    now: float = NOW,
    secrets: tuple[str, ...] = (SECRET,),
) -> str | Refusal:
    return verify(given, body, secrets, now)


def test_the_known_answer_of_standard_webhooks() -> None:
    """Svix' own test of its Python library."""
    known = [
        ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("svix-timestamp", "1614265330"),
        ("svix-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    for spelling in (secret, secret.removeprefix("whsec_")):
        assert verify(known, body, (spelling,), 1614265330) == known[0][1]
    assert verify(known, body + b" ", (secret,), 1614265330) is R.SIGNATURE_WRONG


def test_the_id_of_a_message_that_was_signed_is_returned() -> None:
    assert verdict(headers()) == MESSAGE


def test_names_of_headers_are_taken_in_any_case_and_in_both_spellings() -> None:
    assert verdict([(name.upper(), value) for name, value in headers()]) == MESSAGE
    standard = signed(BODY, message_id=MESSAGE, now=NOW, spelling="webhook")
    assert verdict(list(standard.items())) == MESSAGE


def test_the_spellings_are_never_mixed_and_svix_goes_first() -> None:
    standard = list(signed(BODY, message_id="msg_standard", now=NOW, spelling="webhook").items())
    assert verdict(headers() + standard) == MESSAGE
    assert verdict(headers(signature="v1,x") + standard) is R.SIGNATURE_WRONG
    assert verdict(headers(signature=None) + standard) is R.HEADER_MISSING
    assert verdict([("svix-id", MESSAGE), *standard]) is R.HEADER_MISSING


def test_headers_are_judged_without_the_body_and_prove_nothing() -> None:
    claim = check_headers(headers(), NOW)
    assert not isinstance(claim, Refusal)
    assert check_body(claim, BODY, (SECRET,)) == MESSAGE
    assert check_body(claim, BODY + b" ", (SECRET,)) is R.SIGNATURE_WRONG
    assert check_headers(headers(signature="v1,x"), NOW) != claim
    assert check_headers(headers(id="x"), NOW) is R.ID_MALFORMED
    assert check_headers(headers(), NOW + 301) is R.TIMESTAMP_OUT_OF_TOLERANCE


@pytest.mark.parametrize("name", ["id", "timestamp", "signature"])
def test_each_header_comes_exactly_once(name: str) -> None:
    assert verdict(headers(**{name: None})) is R.HEADER_MISSING
    (value,) = (value for key, value in headers() if key == f"svix-{name}")
    assert verdict([*headers(), (f"Svix-{name}", value)]) is R.HEADER_REPEATED


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (-301, R.TIMESTAMP_OUT_OF_TOLERANCE),
        (-300.001, R.TIMESTAMP_OUT_OF_TOLERANCE),
        (-300, MESSAGE),
        (0, MESSAGE),
        (300, MESSAGE),
        (300.001, R.TIMESTAMP_OUT_OF_TOLERANCE),
        (86_400, R.TIMESTAMP_OUT_OF_TOLERANCE),
    ],
)
def test_five_minutes_are_tolerated_both_ways(seconds: float, wanted: str | Refusal) -> None:
    assert verdict(headers(), now=NOW + seconds) == wanted


def test_a_body_that_is_not_utf8_is_refused_even_where_it_is_signed() -> None:
    body = BODY + b"\xff"
    assert verdict(list(signed(body, now=NOW).items()), body=body) is R.BODY_NOT_UTF8


def test_the_body_may_hold_any_text() -> None:
    body = '{"name":"Zoë ☃ 😀","a":"\\u0000"}'.encode()
    assert isinstance(verdict(list(signed(body, now=NOW).items()), body=body), str)


def test_any_of_the_secrets_and_any_of_eight_signatures_will_do() -> None:
    good = dict(headers())["svix-signature"]
    other = signature(BODY, MESSAGE, str(NOW), OTHER_SECRET)
    many = " ".join([*["v1,AAAA"] * 6, "v1a,AAAA", good])
    for signatures in (good, f"{other} {good}", f"{good} {other}", many):
        assert verdict(headers(signature=signatures)) == MESSAGE
        assert verdict(headers(signature=signatures), secrets=(OTHER_SECRET, SECRET)) == MESSAGE
    assert verdict(headers(signature=f"v1,AAAA {many}")) is R.TOO_MANY_SIGNATURES
    assert verdict(headers(), secrets=(OTHER_SECRET,)) is R.SIGNATURE_WRONG
    assert verdict(headers(), secrets=()) is R.SIGNATURE_WRONG


def test_long_headers_are_refused_unread() -> None:
    long = "x" * (HEADER_CHARACTERS_MAX + 1)
    for name in ("id", "timestamp", "signature"):
        assert verdict(headers(**{name: long})) is R.HEADER_TOO_LONG


def test_base64_that_is_spelled_otherwise_is_another_signature() -> None:
    """Lenient decoders see the same 32 bytes in all of these."""
    good = dict(headers())["svix-signature"].removeprefix("v1,")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    sloppy = good[:-2] + last[last.index(good[-2]) + 1] + "="  # bits that no byte needs
    assert base64.b64decode(sloppy) == base64.b64decode(good)
    for spelled in (sloppy, good.rstrip("="), good + "=", good + "!!", good[:9] + "\t" + good[9:]):
        assert verdict(headers(signature=f"v1,{spelled}")) is R.SIGNATURE_WRONG


texts = st.text(st.characters(max_codepoint=255), max_size=60)
pieces = st.sampled_from(["v1,", "v1", ",", " ", "=", "v1a,", "msg_", ".", "1790000000"]) | texts
values = st.lists(pieces, max_size=6).map("".join)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [f"{a}-{b}" for a in ("svix", "WebHook") for b in ("id", "timestamp", "signature")]
            ),
            values,
        ),
        max_size=7,
    ),
    st.binary(max_size=40),
)
@example([("svix-id", MESSAGE), ("svix-timestamp", "9999999999"), ("svix-signature", "")], b"")
def test_whatever_is_sent_is_refused_and_raises_nothing(
    given_headers: list[tuple[str, str]], body: bytes
) -> None:
    assert isinstance(verdict(given_headers, body=body), Refusal)
    assert isinstance(verdict(headers() + given_headers, body=body), Refusal)


@given(st.binary(min_size=1, max_size=3), st.integers(0, len(BODY)))
def test_no_byte_may_be_added(extra: bytes, place: int) -> None:
    changed = BODY[:place] + extra + BODY[place:]
    assert isinstance(verdict(headers(), body=changed), Refusal)
