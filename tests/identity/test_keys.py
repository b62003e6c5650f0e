"""Public keys: every form that Clerk hands out, and nothing that is not an RSA key of good size."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pdp.identity.keys import KeyRefused, parse_key_set, parse_pem, read_key_set
from tests.kit.tokens import base64url_of_integer, signing_key

KEY = signing_key()
NUMBERS = KEY.private.public_key().public_numbers()
PEM = KEY.public_pem
BODY = "".join(PEM.splitlines()[1:-1])
SPKI = KEY.private.public_key()
PKCS1 = SPKI.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1).decode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(PEM, id="as it is"),
        pytest.param(PEM.strip(), id="without the last newline"),
        pytest.param(PEM.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(PEM.replace("\n", "\\n"), id="escaped newlines"),
        pytest.param(PEM.replace("\n", "\\r\\n"), id="escaped CRLF"),
        pytest.param(PEM.replace("\n", ""), id="newlines removed"),
        pytest.param(PEM.replace("\n", " "), id="newlines as spaces"),
        pytest.param("\ufeff" + PEM, id="BOM"),
        pytest.param("\n  " + PEM.replace("\n", " \t\n") + "  \n\n", id="blanks"),
        pytest.param(BODY, id="bare"),
        pytest.param("\n".join(PEM.splitlines()[1:-1]), id="bare with newlines"),
        pytest.param(PKCS1, id="PKCS1"),
    ],
)
def test_a_pem_key_is_read_in_every_form_it_is_passed_around_in(text: str) -> None:
    assert parse_pem(text).public_numbers() == NUMBERS


def _pem_of(key) -> str:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("-----BEGIN PUBLIC KEY----------END PUBLIC KEY-----", id="no body"),
        pytest.param(BODY[:-8], id="truncated"),
        pytest.param(PEM + PEM, id="two keys"),
        pytest.param(PEM.replace("PUBLIC", "PRIVATE"), id="another label"),
        pytest.param(
            KEY.private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode(),
            id="private",
        ),
        pytest.param(_pem_of(ec.generate_private_key(ec.SECP256R1()).public_key()), id="EC"),
        pytest.param(signing_key("small", bits=1024).public_pem, id="1024 bits"),
        pytest.param(json.dumps(KEY.jwk()), id="a JWK"),
        pytest.param(
            SPKI.public_bytes(
                serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            ).decode(),
            id="SSH",
        ),
    ],
)
def test_what_is_not_an_rsa_public_key_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(KeyRefused) as error:
        parse_pem(text)
    assert BODY[:16] not in str(error.value)


OTHER = signing_key("other")


@pytest.mark.parametrize(
    "overrides",
    [
        {"kty": "oct"},
        {"kty": "OKP"},
        {"kty": "EC"},
        {"kty": "rsa"},
        {"kty": None},
        {"kty": ["RSA"]},
        {"use": "enc"},
        {"use": ""},
        {"alg": "HS256"},
        {"alg": "RS512"},
        {"alg": "ES256"},
        {"alg": "PS256"},
        {"alg": ["RS256"]},
        {"d": "AQAB"},
        {"k": "AQAB"},
        {"p": "AQAB"},
        {"oth": []},
        {"kid": None},
        {"kid": 7},
        {"kid": ""},
        {"kid": "x" * 257},
        {"n": None},
        {"n": ""},
        {"n": 7},
        {"n": "AQAB"},
        {"n": "not base64url!"},
        {"n": "A"},
        {"n": OTHER.jwk()["n"] + "=="},
        {"n": base64url_of_integer(NUMBERS.n * 2)},  # even
        {"n": base64url_of_integer(NUMBERS.n >> 1537 | 1)},  # 511 bits
        {"n": base64url_of_integer((1 << 2046) + 1)},  # 2047 bits
        {"n": base64url_of_integer((1 << 8192) + 1)},
        {"n": base64url_of_integer((1 << 65535) + 1)},
        {"e": None},
        {"e": ""},
        {"e": base64url_of_integer(0)},
        {"e": base64url_of_integer(1)},
        {"e": base64url_of_integer(3)},
        {"e": base64url_of_integer(65536)},
        {"e": base64url_of_integer((1 << 64) + 1)},
        {"e": 65537},
    ],
)
def test_an_unacceptable_key_is_skipped_and_the_good_one_kept(overrides: dict) -> None:
    content = parse_key_set(_set(OTHER.jwk(**overrides), KEY.jwk()))
    assert list(content.keys) == [KEY.kid]
    assert content.keys[KEY.kid].public_numbers() == NUMBERS
    assert content.skipped == 1


def test_use_and_alg_may_be_absent() -> None:
    assert parse_key_set(_set(KEY.jwk(use=None, alg=None))).keys
    assert parse_key_set(_set(KEY.jwk(x5c=["AAAA"], anything=1))).keys


def test_keys_that_share_a_kid_are_all_skipped() -> None:
    content = parse_key_set(_set(OTHER.jwk(kid="ins_twice"), KEY.jwk(kid="ins_twice"), KEY.jwk()))
    assert list(content.keys) == [KEY.kid]
    assert content.skipped == 2
    assert set(content.ignored) == {("ins_twice", "is there more than once")}


def test_an_ignored_key_is_logged_with_the_reason() -> None:
    content = read_key_set(
        _set(KEY.jwk(alg="RS512"), OTHER.jwk(kid=None), OTHER.jwk(d="AQAB")),
    )
    assert not content.keys
    assert content.ignored == [
        (KEY.kid, "made for another algorithm"),
        ("keys[1]", "has no kid that can be used"),
        (OTHER.kid, "a private key"),
    ]


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b'{"keys":null}', b'{"keys":[]}', b'{"keys":[1]}', b"<html>", b"[]"],
)
def test_what_has_no_usable_key_is_no_key_set(text: bytes) -> None:
    with pytest.raises(KeyRefused):
        parse_key_set(text)


def test_a_set_of_too_many_keys_is_refused() -> None:
    many = [KEY.jwk(kid=f"ins_{i}") for i in range(65)]
    assert len(parse_key_set(_set(*many[:64])).keys) == 64
    with pytest.raises(KeyRefused, match="more than 64 keys"):
        parse_key_set(_set(*many))


def test_a_number_with_leading_zeros_is_the_same_number() -> None:
    padded = base64.urlsafe_b64encode(b"\0" + NUMBERS.n.to_bytes(256, "big")).decode().rstrip("=")
    assert parse_key_set(_set(KEY.jwk(n=padded))).keys[KEY.kid].public_numbers() == NUMBERS


def _set(*keys: dict) -> bytes:
    return json.dumps({"keys": keys}).encode()
