"""Incidents of other verifiers, each as a test of this one."""

import base64
import gc
import hashlib
import hmac
import itertools
import json
import logging
import math
import random
import time

import pytest
from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError

from pdp.errors import KeysUnavailable
from pdp.model import Reason, VerifiedToken
from pdp.settings import IssuerSettings, Settings
from tests.kit import soak
from tests.kit.identity.key_server import KeyServer, Mode
from tests.kit.identity.verifiers import NOW, accepted, make_verifier, pem_issuer, reason, running
from tests.kit.tokens import (
    ISSUER,
    PARTY,
    base64url,
    raw_token,
    session_claims,
    session_token,
    signing_input,
    signing_key,
)
from tests.kit.waiting import eventually, run

KEY = signing_key()
R = Reason


def hmac_token(secret: bytes, algorithm: str = "HS256") -> str:
    header = {"alg": algorithm, "typ": "JWT", "kid": KEY.kid}
    signed = signing_input(header, session_claims(now=NOW))
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def public_texts() -> dict[str, bytes]:
    """Every text that an attacker can make of the public key."""
    public = KEY.private.public_key()
    encodings = serialization.Encoding
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = public.public_bytes(encodings.PEM, spki)
    return {
        "PEM": pem,
        "PEM without the last newline": pem.strip(),
        "PEM with CRLF": pem.replace(b"\n", b"\r\n"),
        "PEM without newlines": pem.replace(b"\n", b""),
        "PEM with a BOM": b"\xef\xbb\xbf" + pem,
        "PEM with trailing blanks": pem + b" \t\n",
        "PEM's body": b"".join(pem.splitlines()[1:-1]),
        "DER": public.public_bytes(encodings.DER, spki),
        "PKCS1": public.public_bytes(encodings.PEM, serialization.PublicFormat.PKCS1),
        "SSH": public.public_bytes(encodings.OpenSSH, serialization.PublicFormat.OpenSSH),
        "JWK": json.dumps(KEY.jwk()).encode(),
        "JWK, compact": json.dumps(KEY.jwk(), separators=(",", ":")).encode(),
        "JWKS": json.dumps({"keys": [KEY.jwk()]}).encode(),
        "n": KEY.jwk()["n"].encode(),
        "nothing": b"",
    }


@pytest.mark.parametrize("form", public_texts())
def test_j1_a_token_maced_with_the_public_key_is_refused(form: str) -> None:
    """CVE-2022-29217 (PyJWT), CVE-2024-37568 (Authlib), CVE-2024-33663 (python-jose)."""
    secret = public_texts()[form]
    for algorithm, wanted in (
        ("HS256", R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ("RS256", R.TOKEN_SIGNATURE_INVALID),
    ):
        assert reason(run(make_verifier().verify(hmac_token(secret, algorithm)))) is wanted


@pytest.mark.parametrize(
    "change",
    [
        lambda pem: pem.replace("\n", "\r\n"),
        lambda pem: pem.replace("\n", ""),
        lambda pem: pem.replace("\n", "\\n"),
        lambda pem: "\ufeff" + pem,
        lambda pem: pem + "  \n \t",
        lambda pem: " " + pem,
    ],
    ids=["CRLF", "no newlines", "escaped newlines", "BOM", "trailing blanks", "leading blank"],
)
def test_j2_a_differently_spelled_pem_is_the_same_key_and_no_hmac_secret(change) -> None:
    """CVE-2026-48526, CVE-2026-102273 and CVE-2026-102268 (PyJWT): a guard that compares texts
    misses a PEM with other whitespace. Here the PEM becomes a key object once, at the start."""
    pem = change(KEY.public_pem)
    verifier = make_verifier(IssuerSettings(issuer=ISSUER, public_key=pem))
    accepted(run(verifier.verify(session_token(now=NOW))))
    for secret in (pem.encode(), pem.strip().encode(), KEY.public_pem.encode()):
        assert reason(run(verifier.verify(hmac_token(secret)))) is R.TOKEN_ALGORITHM_NOT_ALLOWED
        assert (
            reason(run(verifier.verify(hmac_token(secret, "RS256")))) is R.TOKEN_SIGNATURE_INVALID
        )


@pytest.mark.parametrize("algorithm", ["HS256", "RS512", "RS384", "PS256", "ES256", "none", ""])
def test_j3_the_algorithm_of_key_and_header_is_rs256_and_nothing_else(algorithm: str) -> None:
    """CVE-2026-48523 (PyJWT): the header's algorithm was checked, the JWK's was used."""
    odd = signing_key("other").jwk(alg=algorithm)
    with KeyServer([KEY.jwk(), odd]) as server, running(server) as verifier:
        token = session_token(now=NOW, issuer=server.issuer, key=signing_key("other"))
        assert reason(run(verifier.verify(token))) is R.TOKEN_KEY_UNKNOWN
        token = session_token(now=NOW, issuer=server.issuer, header={"alg": algorithm})
        assert reason(run(verifier.verify(token))) is R.TOKEN_ALGORITHM_NOT_ALLOWED
        accepted(run(verifier.verify(session_token(now=NOW, issuer=server.issuer))))


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["x"]},
        {"crit": ["x"], "x": 1},
        {"crit": ["b64"], "b64": False},
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": "x"},
        {"crit": None},
        {"b64": False},
    ],
)
def test_j4_critical_extensions_are_refused(header: dict) -> None:
    """CVE-2026-32597 (PyJWT), CVE-2025-59420 (Authlib)."""
    token = session_token(now=NOW, header=header)
    assert reason(run(make_verifier().verify(token))) is R.TOKEN_ALGORITHM_NOT_ALLOWED


@pytest.mark.parametrize(
    "issuer",
    [
        ISSUER[:-1],
        ISSUER[1:],
        ISSUER + "/",
        ISSUER + ".evil.example",
        ISSUER + "/x",
        "x" + ISSUER,
        ISSUER.upper(),
        ISSUER.replace("https", "http"),
        " " + ISSUER,
        ISSUER + "\n",
        ISSUER.replace("e", "\u0435"),
        "clerk.example.test",
        "",
        [ISSUER],
        {ISSUER: 1},
        7,
    ],
)
def test_j5_an_issuer_that_is_not_byte_for_byte_the_configured_one_is_refused(issuer) -> None:
    """CVE-2024-53861 (PyJWT): a partial match of `iss` was accepted."""
    token = session_token(now=NOW, claims={"iss": issuer})
    assert reason(run(make_verifier().verify(token))) is R.TOKEN_ISSUER_MISMATCH


def test_j6_without_an_issuer_nothing_starts() -> None:
    """CVE-2026-55689 (OpenFGA): a check was skipped because it was not configured."""
    with pytest.raises(ValidationError, match="issuers"):
        Settings(issuers=())
    for issuer in ("", "clerk.example.test", "https://", "http://clerk.example.test"):
        with pytest.raises(ValidationError):
            Settings(issuers=(IssuerSettings(issuer=issuer),))
    with pytest.raises(ValueError, match="public key"):
        make_verifier(IssuerSettings(issuer=ISSUER, public_key=""))


@pytest.mark.soak
def test_j7_a_flood_of_unknown_kids_and_bad_signatures_costs_one_fetch() -> None:
    """GHSA-fhv5-28vv-h8m8 (PyJWKClient): a fetch for every unknown kid; and SDKs that fetch again
    for every bad signature."""
    with KeyServer([KEY.jwk()]) as server, running(server, jwks_cooldown_seconds=3600) as verifier:
        payload, signature = session_token(now=NOW, issuer=server.issuer).split(".")[1:]
        good_header = {"alg": "RS256", "typ": "JWT", "kid": KEY.kid}
        dice = random.Random(7)
        for i in range(soak.count(2_000, sample=200)):
            header = json.dumps({**good_header, "kid": f"ins_{i}"}).encode()
            token = f"{base64url(header)}.{payload}.{signature}"
            assert reason(run(verifier.verify(token))) is R.TOKEN_KEY_UNKNOWN
            forged = f"{base64url(json.dumps(good_header).encode())}.{payload}."
            forged += base64url(dice.randbytes(256))
            assert reason(run(verifier.verify(forged))) is R.TOKEN_SIGNATURE_INVALID
            if i % 100 == 0:
                accepted(
                    run(
                        verifier.verify(
                            session_token(now=NOW, issuer=server.issuer, user_id=f"user_{i}")
                        )
                    )
                )
        # One at the start, one for the first unknown kid. The control, without a cooldown, is in
        # test_key_sets.py.
        assert server.fetches == 2


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "data:application/json,{}",
        "ftp://clerk.example.test/jwks.json",
        "http://169.254.169.254/latest/meta-data",
        "http://clerk.example.test/jwks.json",
        "http://127.0.0.1.evil.example/jwks.json",
        "https://user:password@clerk.example.test/jwks.json",
        "https:///jwks.json",
    ],
)
def test_j8_a_key_set_comes_over_https_only(url: str) -> None:
    """GHSA-993g-76c3-p5m4 (PyJWKClient opened file: URLs), CVE-2026-24117 (Rekor, SSRF)."""
    with pytest.raises(ValidationError):
        IssuerSettings(issuer=ISSUER, jwks_url=url)


@pytest.mark.parametrize("parameter", ["jku", "x5u"])
def test_j8_a_url_in_a_token_is_never_followed(parameter: str) -> None:
    """GHSA-993g-76c3-p5m4, CVE-2026-24117."""
    evil = signing_key("evil")
    with (
        KeyServer([evil.jwk()]) as attacker,
        KeyServer([KEY.jwk()]) as server,
        running(server) as verifier,
    ):
        token = session_token(
            now=NOW, issuer=server.issuer, key=evil, header={parameter: attacker.jwks_url}
        )
        assert reason(run(verifier.verify(token))) is R.TOKEN_ALGORITHM_NOT_ALLOWED
        assert attacker.fetches == 0
        assert server.fetches == 1


def test_j8_a_redirect_of_the_key_set_is_not_followed() -> None:
    """CVE-2026-24117 (Rekor)."""
    with KeyServer([KEY.jwk()]) as server:
        server.mode = Mode.REDIRECT
        with running(server, wait=False) as verifier:
            eventually(lambda: verifier.key_fetches[server.issuer].failed)
            with pytest.raises(KeysUnavailable):
                run(verifier.verify(session_token(now=NOW, issuer=server.issuer)))
        assert server.redirects_followed == 0


def test_j9_broken_keys_among_good_ones_are_skipped_and_counted() -> None:
    """CVE-2026-102274, -102266 and -102275 (PyJWT): one malformed JWK broke the whole set. The
    kinds of broken key are in test_keys.py, bodies that are no key set in test_key_sets.py."""
    other = signing_key("other")
    broken = [
        other.jwk(kid="ins_empty", n=""),
        other.jwk(kid="ins_e1", e="AQ"),
        other.jwk(kid="ins_oct", kty="oct", k="c2VjcmV0"),
        other.jwk(kid="ins_okp", kty="OKP", crv="Ed25519", x="AAAA"),
        signing_key("small", bits=1024).jwk(),
        other.jwk(kid="ins_twice"),
        other.jwk(kid="ins_twice"),
    ]
    with KeyServer([*broken, KEY.jwk()]) as server, running(server) as verifier:
        accepted(run(verifier.verify(session_token(now=NOW, issuer=server.issuer))))
        assert verifier.key_fetches[server.issuer].keys_skipped == len(broken)
        for kid in ("ins_empty", "ins_e1", "ins_oct", "ins_okp", "ins_small", "ins_twice"):
            token = session_token(now=NOW, issuer=server.issuer, header={"kid": kid})
            assert reason(run(verifier.verify(token))) is R.TOKEN_KEY_UNKNOWN


def test_j9_ten_thousand_keys_are_no_key_set() -> None:
    """CVE-2026-102274 and the like (PyJWT)."""
    with KeyServer([KEY.jwk()]) as server, running(server, jwks_refresh_seconds=0.05) as verifier:
        server.keys = [{"kty": "RSA", "kid": str(i)} for i in range(10_000)]
        eventually(lambda: verifier.key_fetches[server.issuer].failed)
        accepted(run(verifier.verify(session_token(now=NOW, issuer=server.issuer))))


def _hostile_tokens() -> dict[str, str]:
    good = session_token(now=NOW)
    header, payload, signature = good.split(".")

    def with_header(text: bytes) -> str:
        return f"{base64url(text)}.{payload}.{signature}"

    def with_payload(text: bytes) -> str:
        return f"{header}.{base64url(text)}.{signature}"

    def with_exp(text: bytes) -> str:
        claims = json.dumps(session_claims(now=NOW, without=["exp"])).encode()
        return with_payload(claims[:-1] + b',"exp":' + text + b"}")

    return {
        "a megabyte of dots": "." * 1_000_000,
        "16 KB": f"{header}.{'A' * 16_384}.{signature}",
        "encrypted": f"{header}.{payload}.{payload}.{signature}.{signature}",
        "zip": with_header(b'{"alg":"RS256","zip":"DEF"}'),
        "p2c": with_header(b'{"alg":"PBES2-HS256","p2c":9999999999}'),
        "deep header": with_header(b'{"alg":' + b"[" * 2_500 + b"]" * 2_500 + b"}"),
        "deep payload": with_payload(b'{"a":' + b"[" * 2_500 + b"]" * 2_500 + b"}"),
        "deeper than the bound on length": with_payload(b"[" * 10_000 + b"]" * 10_000),
        "duplicate claim": with_payload(b'{"iss":"a","iss":"b"}'),
        "exp 1e400": with_exp(b"1e400"),
        "exp NaN": with_exp(b"NaN"),
        "exp -Infinity": with_exp(b"-Infinity"),
    }


@pytest.mark.parametrize("name", _hostile_tokens())
def test_j10_a_hostile_text_is_refused_before_any_cryptography(name: str, monkeypatch) -> None:
    """CVE-2025-30204 (golang-jwt), CVE-2023-6681 (jwcrypto), zip bombs of JWE libraries."""

    def touched(*_: object) -> None:
        raise AssertionError("the signature was looked at")

    monkeypatch.setattr("pdp.identity.verifier._check_signature", touched)
    verifier = make_verifier()
    token = _hostile_tokens()[name]
    assert reason(run(verifier.verify(token))) in (R.TOKEN_MALFORMED, R.TOKEN_ALGORITHM_NOT_ALLOWED)
    best = math.inf
    for _ in range(20):  # the best of some: the machine may be busy
        start = time.perf_counter()
        run(verifier.verify(token))
        best = min(best, time.perf_counter() - start)
    assert best < 0.001


@pytest.mark.parametrize("value", ['"9e9"', "-1", "true", "null", "[]", "{}", "1e300"])
def test_j10_a_wrong_exp_is_refused(value: str) -> None:
    """PyJWT before 2.15: CVE-2026-101918, exceptions out of malformed times."""
    body = json.dumps(session_claims(now=NOW, without=["exp"]))[:-1] + f',"exp":{value}}}'
    token = raw_token({"alg": "RS256", "typ": "JWT", "kid": KEY.kid}, body.encode(), KEY)
    assert reason(run(make_verifier().verify(token))) in (
        R.TOKEN_CLAIM_INVALID,
        R.TOKEN_EXPIRED,
        R.TOKEN_LIFETIME_TOO_LONG,
    )


def test_j11_a_token_of_another_instance_is_refused() -> None:
    """clerk/javascript #9394, AISEC-82: keys were cached by kid alone and `iss` was not checked,
    so instance B's token passed at A."""
    with (
        KeyServer([KEY.jwk(kid="ins_same")]) as a,
        KeyServer([signing_key("other").jwk(kid="ins_same")]) as b,
    ):
        both = make_verifier(IssuerSettings(issuer=a.issuer), IssuerSettings(issuer=b.issuer))
        both.start()
        eventually(lambda: a.fetches and b.fetches)
        eventually(lambda: all(f.succeeded for f in both.key_fetches.values()))
        of_b = session_token(
            now=NOW,
            issuer=b.issuer,
            key=signing_key("other"),
            header={"kid": "ins_same"},
        )
        as_a = session_token(
            now=NOW,
            issuer=a.issuer,
            key=signing_key("other"),
            header={"kid": "ins_same"},
        )
        assert accepted(run(both.verify(of_b))).issuer == b.issuer
        assert reason(run(both.verify(as_a))) is R.TOKEN_SIGNATURE_INVALID
        both.stop()
        with running(a) as only_a:
            assert reason(run(only_a.verify(of_b))) is R.TOKEN_ISSUER_MISMATCH


@pytest.mark.parametrize("skew", [math.nan, math.inf, -math.inf, -1, 30.001, 1e9, "NaN"])
def test_j12_a_clock_skew_that_turns_checks_off_is_refused(skew) -> None:
    """Clerk's verifyJwt tests."""
    with pytest.raises(ValidationError, match="clock_skew_seconds"):
        Settings(issuers=(pem_issuer(),), clock_skew_seconds=skew)
    with pytest.raises(ValidationError, match="token_lifetime_seconds_max"):
        Settings(issuers=(pem_issuer(),), token_lifetime_seconds_max=math.inf)


def test_j12_a_configured_skew_of_zero_stays_zero() -> None:
    """clerk/javascript #8359."""
    assert Settings(issuers=(pem_issuer(),), clock_skew_seconds=0).clock_skew_seconds == 0
    verifier = make_verifier(clock_skew_seconds=0)
    token = session_token(now=NOW, claims={"exp": NOW})
    assert reason(run(verifier.verify(token))) is R.TOKEN_EXPIRED


def test_j13_one_failing_claim_among_good_ones_refuses_the_token() -> None:
    """CVE-2026-42349 (Clerk's `has()`): a combination was true though one part was not. All
    combinations of broken claims, the empty one being the only one that passes."""
    breaks = {
        "sub": "mch_1",
        "azp": "https://evil.example",
        "aud": "other",
        "exp": NOW - 5,
        "nbf": NOW + 6,
        "sts": "pending",
        "o": {"id": ""},
        "act": {},
    }
    verifier = make_verifier(pem_issuer(authorized_parties=(PARTY,), audience="api"))
    for broken in itertools.product([False, True], repeat=len(breaks)):
        chosen = {n: v for (n, v), b in zip(breaks.items(), broken, strict=True) if b}
        token = session_token(now=NOW, claims={"aud": "api", **chosen})
        assert isinstance(run(verifier.verify(token)), VerifiedToken) is not any(broken)


def test_j14_no_part_of_a_token_or_key_appears_in_logs_errors_or_values(caplog) -> None:
    """GHSA-xr7q (gRPC-Go): tokens in logs."""
    caplog.set_level(logging.DEBUG)
    secrets: set[str] = set()
    seen: list[str] = []
    keys = [KEY.jwk(), KEY.jwk(kid="ins_twice"), KEY.jwk(kid="ins_twice")]
    with KeyServer(keys) as server, running(server, jwks_refresh_seconds=0.05) as verifier:
        for i in range(300):
            claims = {"canary": f"canary-{i}"}
            token = session_token(
                now=NOW - (0, 100)[i % 2],
                issuer=server.issuer,
                key=signing_key(("main", "other")[i % 3 == 0]),
                header={"kid": ("ins_main", "canary-kid")[i % 5 == 0]},
                claims=claims,
            )
            for text in (token, token[:-3], "Bearer " + token, token.replace(".", "!")):
                try:
                    seen.append(repr(run(verifier.verify(text))))
                except KeysUnavailable as error:
                    seen.append(repr(error) + repr(error.metadata))
            secrets |= set(token.split("."))
        server.mode = Mode.BODY
        server.body = b'{"keys":[{"kid":"canary-body"}]}'
        eventually(lambda: verifier.key_fetches[server.issuer].failed)
    texts = "\n".join([caplog.text, *seen])
    assert "could not be fetched" in caplog.text
    for secret in (*secrets, KEY.jwk()["n"], "canary-kid", "canary-body"):
        assert secret not in texts
    assert "canary-2'" in texts  # a verified claim is a value that conditions read


def test_j14_the_verifier_keeps_no_token() -> None:
    """GHSA-xr7q: what is not kept cannot be shown by a dump either."""
    verifier = make_verifier()
    token = session_token(now=NOW)
    accepted(run(verifier.verify(token)))
    signature = token.rpartition(".")[2]
    reached: list[object] = [verifier]
    known: set[int] = set()
    while reached:
        thing = reached.pop()
        if id(thing) in known or isinstance(thing, type):
            continue
        known.add(id(thing))
        if isinstance(thing, str):
            assert signature not in thing
        if isinstance(thing, bytes):
            assert base64.urlsafe_b64decode(signature + "==") not in thing
        module = type(thing).__module__
        if module.startswith(("pdp", "builtins", "cachetools")) and not callable(thing):
            reached.extend(gc.get_referents(thing))
