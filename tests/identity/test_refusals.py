"""Tokens that the verifier must refuse, kind by kind, each with its own reason.

In the order of the checks: the header, the class of the token, issuer, party and time, the claims,
the shape.
"""

import base64
import json
import math

import pytest

from pdp.model import Reason, RefusedToken
from pdp.strict_json import with_numbers_as_floats
from tests.kit.identity.verifiers import NOW, accepted, make_verifier, pem_issuer, reason
from tests.kit.tokens import (
    IGNORED_CATEGORY,
    ISSUER,
    MACHINE_CATEGORY,
    PARTY,
    SESSION_CATEGORY,
    TEMPLATE_CATEGORY,
    base64url,
    raw_token,
    session_claims,
    session_token,
    signing_input,
    signing_key,
)
from tests.kit.waiting import run

R = Reason


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({}, id="as Clerk makes it"),
        pytest.param({"cat": IGNORED_CATEGORY}, id="an instance that ignores categories"),
        pytest.param({"oiat": 1_800_000_000}, id="unknown parameters are ignored"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_session_token_is_accepted(header: dict, version: int) -> None:
    token = session_token(now=NOW, version=version, organization_id="org_a", header=header)
    verified = accepted(run(make_verifier().verify(token)))
    assert verified.actor.user_id == "user_1"
    assert verified.actor.session_id == "sess_1"
    assert verified.actor.organization_id == "org_a"
    assert verified.issuer == ISSUER
    assert verified.token_id == "0123456789abcdef"
    assert verified.expires_at == NOW + 60


@pytest.mark.parametrize("absent", ["typ", "cat"])
def test_typ_and_cat_may_be_absent(absent: str) -> None:
    accepted(run(make_verifier().verify(session_token(now=NOW, without_header=[absent]))))


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        # no algorithm
        ({"alg": "none"}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"alg": "None"}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"alg": ""}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"alg": None}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        # another algorithm
        ({"alg": "HS256"}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"alg": "PS256"}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"alg": "ES256"}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"alg": "RS384"}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"alg": "RS512"}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"alg": "rs256"}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"alg": ["RS256"]}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        # kid
        ({"kid": 7}, R.TOKEN_MALFORMED),
        ({"kid": None}, R.TOKEN_MALFORMED),
        ({"kid": ["ins_main"]}, R.TOKEN_MALFORMED),
        # a token may not bring or name its key
        ({"jku": "https://evil.example/jwks.json"}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"x5u": "https://evil.example/cert.pem"}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"jwk": signing_key("evil").jwk()}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"x5c": ["AAAA"]}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        # extensions
        ({"crit": ["x"], "x": 1}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"crit": ["b64"], "b64": False}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"b64": False}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"b64": True}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"zip": "DEF"}, R.TOKEN_ALGORITHM_NOT_ALLOWED),
        # typ
        ({"typ": "at+jwt"}, R.TOKEN_NOT_A_SESSION),
        ({"typ": "application/at+jwt"}, R.TOKEN_NOT_A_SESSION),
        ({"typ": "AT+JWT"}, R.TOKEN_NOT_A_SESSION),
        ({"typ": "jwt"}, R.TOKEN_NOT_A_SESSION),
        ({"typ": ""}, R.TOKEN_NOT_A_SESSION),
        ({"typ": None}, R.TOKEN_NOT_A_SESSION),
        ({"typ": ["JWT"]}, R.TOKEN_NOT_A_SESSION),
        # cat
        ({"cat": TEMPLATE_CATEGORY}, R.TOKEN_NOT_A_SESSION),
        ({"cat": MACHINE_CATEGORY}, R.TOKEN_NOT_A_SESSION),
        ({"cat": "whatever"}, R.TOKEN_NOT_A_SESSION),
        ({"cat": ""}, R.TOKEN_NOT_A_SESSION),
        ({"cat": None}, R.TOKEN_NOT_A_SESSION),
        ({"cat": [SESSION_CATEGORY]}, R.TOKEN_NOT_A_SESSION),
        ({"cat": {}}, R.TOKEN_NOT_A_SESSION),
    ],
)
def test_a_header_that_is_not_a_session_tokens_is_refused(header: dict, wanted: Reason) -> None:
    token = session_token(now=NOW, header=header)
    assert reason(run(make_verifier().verify(token))) is wanted


def test_a_header_without_an_algorithm_is_refused() -> None:
    token = session_token(now=NOW, without_header=["alg"])
    assert reason(run(make_verifier().verify(token))) is R.TOKEN_ALGORITHM_NOT_ALLOWED


def test_4_a_signature_that_is_not_over_these_bytes_is_refused() -> None:
    verifier = make_verifier()
    header, payload, signature = session_token(now=NOW).split(".")
    other_header, other_payload, _ = session_token(now=NOW, user_id="user_2").split(".")
    altered = "A" + signature[1:] if signature[0] != "A" else "B" + signature[1:]
    for token in (
        f"{header}.{payload}.",
        f"{header}.{payload}.{signature[:-6]}",
        f"{header}.{payload}.{altered}",
        f"{header}.{payload}.{base64url(bytes(256))}",
        f"{header}.{other_payload}.{signature}",
        session_token(now=NOW, key=signing_key("other")),
    ):
        assert reason(run(verifier.verify(token))) is R.TOKEN_SIGNATURE_INVALID
    assert other_header == header
    accepted(run(verifier.verify(f"{header}.{payload}.{signature}")))


@pytest.mark.parametrize(
    ("claims", "without", "wanted"),
    [
        # sub
        ({}, ["sub"], R.TOKEN_CLAIM_INVALID),
        ({"sub": 7}, [], R.TOKEN_CLAIM_INVALID),
        ({"sub": None}, [], R.TOKEN_CLAIM_INVALID),
        ({"sub": ["user_1"]}, [], R.TOKEN_CLAIM_INVALID),
        ({"sub": ""}, [], R.TOKEN_NOT_A_SESSION),
        ({"sub": "mch_1"}, [], R.TOKEN_NOT_A_SESSION),
        ({"sub": "User_1"}, [], R.TOKEN_NOT_A_SESSION),
        ({"sub": " user_1"}, [], R.TOKEN_NOT_A_SESSION),
        ({"sub": "user_"}, [], R.TOKEN_CLAIM_INVALID),
        ({"sub": "user_1\n"}, [], R.TOKEN_CLAIM_INVALID),
        ({"sub": "user_\u0430"}, [], R.TOKEN_CLAIM_INVALID),
        ({"sub": "user_" + "1" * 300}, [], R.TOKEN_CLAIM_INVALID),
        # sid
        ({}, ["sid"], R.TOKEN_NOT_A_SESSION),
        ({"sid": None}, [], R.TOKEN_CLAIM_INVALID),
        ({"sid": "mt_1"}, [], R.TOKEN_NOT_A_SESSION),
        ({"sid": "sess_"}, [], R.TOKEN_CLAIM_INVALID),
        # issuer
        ({}, ["iss"], R.TOKEN_ISSUER_MISMATCH),
        ({"iss": None}, [], R.TOKEN_ISSUER_MISMATCH),
        ({"iss": [ISSUER]}, [], R.TOKEN_ISSUER_MISMATCH),
        ({"iss": {}}, [], R.TOKEN_ISSUER_MISMATCH),
        ({"iss": "https://clerk.other.test"}, [], R.TOKEN_ISSUER_MISMATCH),
        # exp
        ({}, ["exp"], R.TOKEN_CLAIM_INVALID),
        ({"exp": str(int(NOW) + 60)}, [], R.TOKEN_CLAIM_INVALID),
        ({"exp": True}, [], R.TOKEN_CLAIM_INVALID),
        ({"exp": None}, [], R.TOKEN_CLAIM_INVALID),
        ({"exp": [NOW + 60]}, [], R.TOKEN_CLAIM_INVALID),
        ({"exp": NOW - 5}, [], R.TOKEN_EXPIRED),
        ({"exp": -1}, [], R.TOKEN_EXPIRED),
        # nbf, iat
        ({"nbf": NOW + 5.001}, [], R.TOKEN_NOT_YET_VALID),
        ({"iat": NOW + 5.001}, [], R.TOKEN_NOT_YET_VALID),
        ({"nbf": "soon"}, [], R.TOKEN_CLAIM_INVALID),
        ({"nbf": None}, [], R.TOKEN_CLAIM_INVALID),
        ({"nbf": False}, [], R.TOKEN_CLAIM_INVALID),
        ({"iat": "now"}, [], R.TOKEN_CLAIM_INVALID),
        ({"iat": True}, [], R.TOKEN_CLAIM_INVALID),
        ({}, ["iat"], R.TOKEN_CLAIM_INVALID),
        # minted for years
        ({"exp": NOW + 3601}, [], R.TOKEN_LIFETIME_TOO_LONG),
        ({"exp": NOW + 315_360_000}, [], R.TOKEN_LIFETIME_TOO_LONG),
        ({"exp": 10**300}, [], R.TOKEN_LIFETIME_TOO_LONG),
        ({"iat": -(10**9)}, [], R.TOKEN_LIFETIME_TOO_LONG),
        # sts
        ({"sts": "pending"}, [], R.SESSION_PENDING),
        ({"sts": "Active"}, [], R.SESSION_PENDING),
        ({"sts": ""}, [], R.SESSION_PENDING),
        ({"sts": None}, [], R.SESSION_PENDING),
        ({"sts": ["active"]}, [], R.SESSION_PENDING),
        # v
        ({"v": 3}, [], R.TOKEN_CLAIM_INVALID),
        ({"v": 1}, [], R.TOKEN_CLAIM_INVALID),
        ({"v": "2"}, [], R.TOKEN_CLAIM_INVALID),
        ({"v": True}, [], R.TOKEN_CLAIM_INVALID),
        ({"v": 2.0}, [], R.TOKEN_CLAIM_INVALID),
        ({"v": None}, [], R.TOKEN_CLAIM_INVALID),
        # organization
        ({"o": []}, [], R.TOKEN_CLAIM_INVALID),
        ({"o": "org_a"}, [], R.TOKEN_CLAIM_INVALID),
        ({"o": None}, [], R.TOKEN_CLAIM_INVALID),
        ({"o": {}}, [], R.TOKEN_CLAIM_INVALID),
        ({"o": {"id": ""}}, [], R.TOKEN_CLAIM_INVALID),
        ({"o": {"id": 7}}, [], R.TOKEN_CLAIM_INVALID),
        ({"o": {"id": "org a"}}, [], R.TOKEN_CLAIM_INVALID),
        ({"o": {"id": "org_a"}}, ["v"], R.TOKEN_CLAIM_INVALID),
        # an impersonator without a name
        ({"act": {}}, [], R.TOKEN_CLAIM_INVALID),
        ({"act": None}, [], R.TOKEN_CLAIM_INVALID),
        ({"act": "user_9"}, [], R.TOKEN_CLAIM_INVALID),
        ({"act": {"sub": ""}}, [], R.TOKEN_CLAIM_INVALID),
        ({"act": {"sub": 9}}, [], R.TOKEN_CLAIM_INVALID),
    ],
)
def test_claims_that_are_not_a_sessions_are_refused(
    claims: dict, without: list, wanted: Reason
) -> None:
    token = session_token(now=NOW, claims=claims, without=without)
    assert reason(run(make_verifier().verify(token))) is wanted


@pytest.mark.parametrize(
    "text",
    ["1e400", "NaN", "Infinity", "-Infinity", "1" * 400, "9" * 5000],
)
def test_16_a_number_that_no_double_holds_is_refused(text: str) -> None:
    payload = json.dumps(session_claims(now=NOW, without=["exp"]))[:-1] + f',"exp":{text}}}'
    assert reason(run(make_verifier().verify(_raw(payload)))) is R.TOKEN_MALFORMED


@pytest.mark.parametrize(
    "token",
    [
        "mt_8XOIucKvqHVr5tYP123456789abcdefghij",
        "m2m_8XOIucKvqHVr5tYP123456789abcdefghi",
        "oat_8XOIucKvqHVr5tYP123456789abcdefghij",
        "ak_LCWGdaM8mv8K4PC/57IICZQXAeWfCgF30DZaFXHoGn9=",
        "sk_test_0123456789",
    ],
)
def test_12_an_opaque_machine_token_is_no_session(token: str) -> None:
    assert reason(run(make_verifier().verify(token))) is R.TOKEN_NOT_A_SESSION


@pytest.mark.parametrize(
    ("party", "without"),
    [
        (PARTY + "/", []),
        (PARTY.upper(), []),
        (PARTY[:-1], []),
        ([PARTY], []),
        (7, []),
        (" ", []),
        (False, []),
        ([], []),
    ],
)
def test_14_a_party_that_is_not_authorized_is_refused(party: object, without: list) -> None:
    verifier = make_verifier(pem_issuer(authorized_parties=(PARTY, "https://admin.example.test")))
    token = session_token(now=NOW, claims={"azp": party}, without=without)
    assert reason(run(verifier.verify(token))) is R.TOKEN_PARTY_NOT_AUTHORIZED
    accepted(run(verifier.verify(session_token(now=NOW))))


@pytest.mark.parametrize(
    ("claims", "without"), [({}, ["azp"]), ({"azp": None}, []), ({"azp": ""}, [])]
)
def test_14_a_token_without_a_party_is_refused_for_a_reason_of_its_own(
    claims: dict, without: list
) -> None:
    token = session_token(now=NOW, claims=claims, without=without)
    verifier = make_verifier(pem_issuer(authorized_parties=(PARTY,)))
    assert reason(run(verifier.verify(token))) is R.TOKEN_PARTY_MISSING
    accepted(run(make_verifier().verify(token)))  # without configured parties, azp is not checked


@pytest.mark.parametrize(
    ("audience", "without"),
    [
        ("other", []),
        (["other"], []),
        ([], []),
        (["api", 7], []),
        ({"api": 1}, []),
        (None, []),
        ("api", ["aud"]),
    ],
)
def test_15_a_token_for_another_audience_is_refused(audience: object, without: list) -> None:
    verifier = make_verifier(pem_issuer(audience="api"))
    token = session_token(now=NOW, claims={"aud": audience}, without=without)
    assert reason(run(verifier.verify(token))) is R.TOKEN_AUDIENCE_MISMATCH
    accepted(run(verifier.verify(session_token(now=NOW, claims={"aud": "api"}))))
    accepted(run(verifier.verify(session_token(now=NOW, claims={"aud": ["web", "api"]}))))


def test_an_audience_is_not_looked_at_where_none_is_configured() -> None:
    accepted(run(make_verifier().verify(session_token(now=NOW, claims={"aud": "somebody"}))))


def test_22_a_mask_that_is_no_plain_number_grants_nothing() -> None:
    for mask in ("-1", "+1", "1_1", "\u0663", "0x1", "1.0", "1e0", " 1", "", "4", "9" * 3000):
        token = session_token(
            now=NOW, organization_id="org_a", features="o:a", permissions="read,edit", masks=mask
        )
        assert accepted(run(make_verifier().verify(token))).claimed_permissions == ()


@pytest.mark.parametrize(
    ("claims", "role", "slug"),
    [
        ({"o": {"id": "org_a", "rol": "admin", "slg": "a"}}, "org:admin", "a"),
        ({"o": {"id": "org_a", "rol": "org:admin"}}, "org:admin", None),
        ({"o": {"id": "org_a", "rol": ""}}, None, None),
        ({"org_id": "org_a", "org_role": "admin", "org_slug": "a"}, "org:admin", "a"),
        ({"org_id": "org_a", "org_role": "org:admin"}, "org:admin", None),
        ({"org_id": "org_a", "org_role": "org:"}, None, None),
        ({}, None, None),
    ],
)
def test_the_claimed_role_has_its_prefix_in_both_versions(
    claims: dict[str, object], role: str | None, slug: str | None
) -> None:
    token = session_token(now=NOW, version=1 if "org_id" in claims else 2, claims=claims)
    verified = accepted(run(make_verifier().verify(token)))
    assert verified.claimed_organization_role == role
    assert verified.claimed_organization_slug == slug


@pytest.mark.parametrize(
    "custom",
    [
        # the session token as public guides of Clerk customize it, with and without organization
        {"org_id": "org_evil", "org_role": "org:admin"},
        {"org_id": None, "org_role": None, "org_slug": None, "org_permissions": None},
        {"org_id": ["org_evil"], "org_permissions": "org:all:manage"},
    ],
)
@pytest.mark.parametrize("organization", [None, "org_a"])
def test_21_custom_claims_with_the_names_of_version_1_are_never_read(
    custom: dict[str, object], organization: str | None
) -> None:
    own = session_claims(now=NOW, organization_id=organization)
    token = session_token(now=NOW, organization_id=organization, claims=custom | {"team": "blue"})
    verified = accepted(run(make_verifier().verify(token)))
    assert verified.actor.organization_id == organization
    assert verified.claimed_organization_role == ("org:member" if organization else None)
    assert verified.claimed_organization_slug == ("a" if organization else None)
    assert verified.claimed_permissions == ()
    assert verified.claims == with_numbers_as_floats(own | {"team": "blue"})


def test_25_an_impersonator_is_named() -> None:
    token = session_token(now=NOW, claims={"act": {"sub": "user_9", "sid": "sess_9"}})
    assert accepted(run(make_verifier().verify(token))).actor.impersonator_id == "user_9"


def test_27_an_absent_or_malformed_fva_is_never_fresh() -> None:
    verifier = make_verifier()
    for fva in (None, 0, [], [0], [0, 0, 0], ["0", 0], [True, 0], [-2, 0], {"0": 0}):
        verified = accepted(run(verifier.verify(session_token(now=NOW, claims={"fva": fva}))))
        assert (verified.first_factor_minutes, verified.second_factor_minutes) == (None, None)
    verified = accepted(run(verifier.verify(session_token(now=NOW, without=["fva"]))))
    assert (verified.first_factor_minutes, verified.second_factor_minutes) == (None, None)
    verified = accepted(run(verifier.verify(session_token(now=NOW, claims={"fva": [3, -1]}))))
    assert (verified.first_factor_minutes, verified.second_factor_minutes) == (3.0, None)


def test_28_a_token_of_another_shape_is_refused() -> None:
    verifier = make_verifier()
    good = session_token(now=NOW)
    header, payload, signature = good.split(".")
    accepted(run(verifier.verify(good)))
    for token in (
        "",
        ".",
        "..",
        "...",
        "a.b",
        "A.A.A",
        f"{good}.x",
        f"{good}.x.y",  # five parts: encrypted
        f" {good}",
        f"{good}\n",
        f"{header}. {payload}.{signature}",
        f"{header}.{payload}.{signature}==",
        f"{header}=.{payload}.{signature}",
        f"{good}\u0130",
        "\ud800.\ud800.\ud800",
        "\x00",
        f".{payload}.{signature}",
        f"{header}..{signature}",
        "A" + good,
        good + "A" * 8192,
    ):
        assert reason(run(verifier.verify(token))) is R.TOKEN_MALFORMED, token[:40]


def test_28_a_token_past_the_length_bound_is_refused_though_it_is_signed() -> None:
    verifier = make_verifier()
    assert (
        reason(run(verifier.verify(session_token(now=NOW, claims={"x": "x" * 8192}))))
        is R.TOKEN_MALFORMED
    )
    accepted(run(verifier.verify(session_token(now=NOW, claims={"x": "x" * 5000}))))


def test_28_another_spelling_of_the_same_signature_is_refused() -> None:
    """The last character of a 256-byte signature has four spare bits; decoders ignore them."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    good = session_token(now=NOW)
    twin = good[:-1] + alphabet[alphabet.index(good[-1]) | 1]
    assert twin != good
    assert base64.urlsafe_b64decode(twin.rpartition(".")[2] + "==") == base64.urlsafe_b64decode(
        good.rpartition(".")[2] + "=="
    )
    assert reason(run(make_verifier().verify(twin))) is R.TOKEN_MALFORMED


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"7",
        b"null",
        b'"x"',
        b"{",
        b"\xff\xfe{}",
        b'{"iss":"' + ISSUER.encode() + b'","iss":"https://other.test"}',
        b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"a":' + b'{"a":' * 17 + b"1" + b"}" * 18,
        b'{"sub":"\\ud800"}',
        b'{"sub":"user_1"} {}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_28_json_that_is_not_strict_is_refused(payload: bytes) -> None:
    key = signing_key()
    header = {"alg": "RS256", "typ": "JWT", "kid": key.kid}
    assert reason(run(make_verifier().verify(raw_token(header, payload, key)))) is R.TOKEN_MALFORMED
    assert reason(run(make_verifier().verify(raw_token(payload, b"{}", key)))) in (
        R.TOKEN_MALFORMED,
        # A JSON object without an algorithm.
        R.TOKEN_ALGORITHM_NOT_ALLOWED,
    )


@pytest.mark.parametrize("twice", ["exp", "sub", "iss", "o"])
def test_28_duplicate_claims_are_refused(twice: str) -> None:
    text = json.dumps(session_claims(now=NOW, organization_id="org_a"))
    payload = f'{text[:-1]},"{twice}":{json.dumps(json.loads(text)[twice])}}}'
    assert reason(run(make_verifier().verify(_raw(payload)))) is R.TOKEN_MALFORMED


def test_29_an_authorization_header_is_no_token() -> None:
    good = session_token(now=NOW)
    for text in (f"Bearer {good}", f"bearer {good}", f"Bearer Bearer {good}", f"{good}, {good}"):
        assert reason(run(make_verifier().verify(text))) is R.TOKEN_MALFORMED


def test_the_signature_is_judged_before_the_claims() -> None:
    token = session_token(now=NOW - 9999, key=signing_key("other"), claims={"sub": "mch_1"})
    assert reason(run(make_verifier().verify(token))) is R.TOKEN_SIGNATURE_INVALID


def test_a_refused_token_names_its_actor_only_where_the_signature_verified() -> None:
    verifier = make_verifier()
    expired = run(verifier.verify(session_token(now=NOW - 100, organization_id="org_a")))
    assert isinstance(expired, RefusedToken)
    assert expired.actor is not None
    assert (expired.actor.user_id, expired.actor.organization_id) == ("user_1", "org_a")
    assert expired.token_id == "0123456789abcdef"
    forged = run(verifier.verify(session_token(now=NOW, key=signing_key("other"))))
    assert isinstance(forged, RefusedToken)
    assert (forged.actor, forged.token_id) == (None, None)
    machine = run(verifier.verify(session_token(now=NOW, claims={"sub": "mch_1"})))
    assert isinstance(machine, RefusedToken)
    assert machine.actor is None


def test_an_unsigned_token_is_refused_whatever_it_says() -> None:
    text = signing_input({"alg": "none", "typ": "JWT"}, session_claims(now=NOW))
    assert reason(run(make_verifier().verify(f"{text}."))) is R.TOKEN_ALGORITHM_NOT_ALLOWED


def test_every_exception_of_the_library_is_a_refusal(monkeypatch) -> None:
    def broken(*_: object) -> bool:
        raise OverflowError

    monkeypatch.setattr("jwt.algorithms.RSAAlgorithm.verify", broken)
    assert reason(run(make_verifier().verify(session_token(now=NOW)))) is R.TOKEN_SIGNATURE_INVALID


def test_a_verified_tokens_claims_are_json_with_floats() -> None:
    token = session_token(now=NOW, claims={"level": 3, "ok": True, "deep": {"list": [1, "2"]}})
    claims = accepted(run(make_verifier().verify(token))).claims
    assert type(claims["level"]) is float
    assert claims["ok"] is True
    assert claims["deep"] == {"list": [1.0, "2"]}
    assert type(claims["deep"]["list"][0]) is float
    assert math.isclose(claims["exp"], NOW + 60)


def _raw(payload: str) -> str:
    key = signing_key()
    return raw_token({"alg": "RS256", "typ": "JWT", "kid": key.kid}, payload.encode(), key)
