"""The verifier as a whole: times, the cache of verified tokens, issuers that share nothing."""

import hashlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.identity import Verifier
from pdp.identity.key_sets import PemKey
from pdp.limits import TOKEN_BYTES_MAX
from pdp.model import Reason, VerifiedToken
from pdp.settings import IssuerSettings
from tests.kit.identity.key_server import KeyServer
from tests.kit.identity.verifiers import NOW, accepted, make_verifier, pem_issuer, reason, running
from tests.kit.tokens import raw_token, session_claims, session_token, signing_key
from tests.kit.waiting import eventually, run


class FakeClock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


@pytest.mark.parametrize("skew", [0, 5, 30])
def test_times_compare_as_clerk_compares_them(skew: float) -> None:
    token = session_token(now=NOW)  # nbf = NOW - 10, iat = NOW, exp = NOW + 60
    for now, wanted in (
        (NOW - skew - 0.001, Reason.TOKEN_NOT_YET_VALID),
        (NOW - skew, None),
        (NOW + 60 + skew - 0.001, None),
        (NOW + 60 + skew, Reason.TOKEN_EXPIRED),
    ):
        verifier = make_verifier(clock=FakeClock(now), clock_skew_seconds=skew)
        verdict = run(verifier.verify(token))
        assert (None if isinstance(verdict, VerifiedToken) else verdict.reason) is wanted


@given(
    moments=st.lists(
        st.floats(min_value=-200, max_value=200).map(lambda s: NOW + s), min_size=1, max_size=6
    ),
    skew=st.sampled_from([0.0, 5.0, 30.0]),
)
def test_a_cached_token_is_judged_by_the_time_of_the_question(
    moments: list[float], skew: float
) -> None:
    """However the clock jumps, the answer of a warm verifier is that of a cold one, and no token
    passes once exp <= now - skew."""
    token = session_token(now=NOW)
    clock = FakeClock()
    warm = make_verifier(clock=clock, clock_skew_seconds=skew)
    accepted(run(warm.verify(token)))
    for now in moments:
        clock.now = now
        cold = make_verifier(clock=clock, clock_skew_seconds=skew)
        known = warm.cached(token, now)
        verdict = run(warm.verify(token))
        assert verdict == run(cold.verify(token))
        assert known in (None, verdict)
        if now - skew >= NOW + 60:
            assert reason(verdict) is Reason.TOKEN_EXPIRED


def test_a_hit_returns_the_same_value_without_verifying_again() -> None:
    verifier = make_verifier()
    token = session_token(now=NOW)
    assert run(verifier.verify(token)) is run(verifier.verify(token))


def test_only_a_token_that_was_verified_is_known() -> None:
    verifier = make_verifier()
    token = session_token(now=NOW)
    assert verifier.cached(token, NOW) is None
    assert verifier.cached("x" * (TOKEN_BYTES_MAX + 1), NOW) is None
    verified = accepted(run(verifier.verify(token)))
    assert verifier.cached(token, NOW) is verified
    assert verifier.cached(token + "x", NOW) is None


def test_tokens_with_one_signature_and_other_payloads_are_not_mixed_up() -> None:
    """Cache-key twins: everything but one segment equal to a token that is in the cache."""
    verifier = make_verifier()
    good = session_token(now=NOW)
    header, payload, signature = good.split(".")
    other = session_token(now=NOW, user_id="user_2")
    _other_header, other_payload, other_signature = other.split(".")
    accepted(run(verifier.verify(good)))
    for twin in (
        f"{header}.{other_payload}.{signature}",
        f"{header}.{payload}.{other_signature}",
        f"{header}{payload[:1]}.{payload[1:]}.{signature}",
        f"{header}.{payload[:-1]}.{payload[-1:]}{signature}",
    ):
        assert not isinstance(run(verifier.verify(twin)), VerifiedToken)
    assert accepted(run(verifier.verify(other))).actor.user_id == "user_2"
    assert accepted(run(verifier.verify(good))).actor.user_id == "user_1"

    # Control: with a key of the signature alone the twin would have been somebody else.
    verifier._cache[digest_of(f"{header}.{other_payload}.{signature}")] = verifier._cache[
        digest_of(good)
    ]
    accepted(run(verifier.verify(f"{header}.{other_payload}.{signature}")))


def test_refusals_are_not_cached() -> None:
    verifier = make_verifier(clock=(clock := FakeClock(NOW - 100)))
    token = session_token(now=NOW)
    assert reason(run(verifier.verify(token))) is Reason.TOKEN_NOT_YET_VALID
    clock.now = NOW
    accepted(run(verifier.verify(token)))


def test_the_cache_is_bounded_and_lets_the_oldest_go() -> None:
    verifier = make_verifier(token_cache_size=3)
    tokens = [session_token(now=NOW, user_id=f"user_{i}") for i in range(5)]
    for token in tokens:
        accepted(run(verifier.verify(token)))
    assert set(verifier._cache) == {digest_of(token) for token in tokens[2:]}
    accepted(run(verifier.verify(tokens[0])))


def _padded(size: int, extra: int) -> str:
    return session_token(now=NOW, claims={"p": "x" * size}, header={"h": "y" * extra})


def test_a_cached_token_of_the_greatest_length_does_not_vouch_for_a_longer_text() -> None:
    """The cache key covers the whole text: what is longer than the bound is refused before it."""
    verifier = make_verifier()
    token = next(
        made
        for extra in range(1, 5)
        for size in range(5_560, 5_590)
        if len(made := _padded(size, extra)) == TOKEN_BYTES_MAX
    )
    accepted(run(verifier.verify(token)))
    assert reason(run(verifier.verify(token + "x"))) is Reason.TOKEN_MALFORMED
    assert reason(run(verifier.verify(token + ".more"))) is Reason.TOKEN_MALFORMED


def test_a_hit_that_no_longer_holds_leaves_the_cache() -> None:
    verifier = make_verifier(clock=(clock := FakeClock()))
    token = session_token(now=NOW)
    accepted(run(verifier.verify(token)))
    clock.now = NOW + 66
    assert reason(run(verifier.verify(token))) is Reason.TOKEN_EXPIRED
    assert verifier.cached_tokens == 0


def test_a_cached_token_is_refused_once_its_key_has_left_the_set() -> None:
    old, new = signing_key("main"), signing_key("other")
    with (
        KeyServer([old.jwk(), new.jwk()]) as server,
        running(server, jwks_refresh_seconds=0.05) as verifier,
    ):
        token = session_token(now=NOW, issuer=server.issuer, key=old)
        accepted(run(verifier.verify(token)))
        entry = verifier._cache[digest_of(token)]
        server.keys = [new.jwk()]
        eventually(lambda: entry.keys.current(old.kid) is None)
        assert reason(run(verifier.verify(token))) is Reason.TOKEN_KEY_UNKNOWN
        accepted(run(verifier.verify(session_token(now=NOW, issuer=server.issuer, key=new))))

        # Control: an entry that is not compared with the current key is served forever.
        unchecked = PemKey(entry.key)
        verifier._cache[digest_of(token)] = type(entry)(
            entry.token, unchecked, entry.kid, entry.key, entry.starts_at
        )
        accepted(run(verifier.verify(token)))


def test_a_cached_token_is_refused_once_its_kid_means_another_key() -> None:
    old, new = signing_key("main"), signing_key("other")
    with KeyServer([old.jwk()]) as server, running(server, jwks_refresh_seconds=0.05) as verifier:
        token = session_token(now=NOW, issuer=server.issuer, key=old)
        accepted(run(verifier.verify(token)))
        server.keys = [new.jwk(kid=old.kid)]
        eventually(lambda: not isinstance(run(verifier.verify(token)), VerifiedToken))
        assert reason(run(verifier.verify(token))) is Reason.TOKEN_SIGNATURE_INVALID


def test_a_refresh_with_the_same_keys_keeps_the_cached_tokens() -> None:
    key = signing_key()
    with KeyServer([key.jwk()]) as server, running(server, jwks_refresh_seconds=0.02) as verifier:
        token = session_token(now=NOW, issuer=server.issuer)
        verified = accepted(run(verifier.verify(token)))
        eventually(lambda: server.fetches > 3)
        assert run(verifier.verify(token)) is verified


def test_issuers_share_nothing() -> None:
    """Two instances with one kid: neither's key vouches for the other's tokens."""
    first, second = "https://clerk.first.test", "https://clerk.second.test"
    verifier = make_verifier(pem_issuer(first, key="main"), pem_issuer(second, key="other"))
    for issuer, key, wanted in (
        (first, "main", None),
        (second, "other", None),
        (first, "other", Reason.TOKEN_SIGNATURE_INVALID),
        (second, "main", Reason.TOKEN_SIGNATURE_INVALID),
    ):
        token = session_token(
            now=NOW, issuer=issuer, key=signing_key(key), header={"kid": "ins_same"}
        )
        verdict = run(verifier.verify(token))
        if wanted is None:
            assert accepted(verdict).issuer == issuer
        else:
            assert reason(verdict) is wanted


def test_each_issuer_has_its_own_authorized_parties() -> None:
    first, second = "https://clerk.first.test", "https://clerk.second.test"
    verifier = make_verifier(
        pem_issuer(first, authorized_parties=("https://app.example.test",)),
        pem_issuer(second, authorized_parties=("https://other.example.test",)),
    )
    accepted(run(verifier.verify(session_token(now=NOW, issuer=first))))
    assert (
        reason(run(verifier.verify(session_token(now=NOW, issuer=second))))
        is Reason.TOKEN_PARTY_NOT_AUTHORIZED
    )


def test_with_a_pem_key_the_kid_is_not_looked_at() -> None:
    verifier = make_verifier()
    assert accepted(run(verifier.verify(session_token(now=NOW, header={"kid": "anything"})))).key_id
    assert (
        accepted(run(verifier.verify(session_token(now=NOW, without_header=["kid"])))).key_id == ""
    )


def test_without_issuers_nothing_is_accepted() -> None:
    verifier = Verifier(
        (),
        clock=FakeClock(),
        clock_skew_seconds=5,
        token_lifetime_seconds_max=3600,
        jwks_refresh_seconds=60,
        jwks_cooldown_seconds=30,
    )
    assert reason(run(verifier.verify(session_token(now=NOW)))) is Reason.TOKEN_ISSUER_MISMATCH
    assert verifier.ready() is False


def test_a_key_that_cannot_be_used_stops_the_start(tmp_path) -> None:
    for text in ("", "not a key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"):
        with pytest.raises(ValueError, match=r"public key of https://clerk\.example\.test"):
            make_verifier(IssuerSettings(issuer="https://clerk.example.test", public_key=text))


def test_a_key_file_is_read_once_at_the_start(tmp_path) -> None:
    file = tmp_path / "clerk.pem"
    file.write_text(signing_key().public_pem)
    verifier = make_verifier(
        IssuerSettings(issuer="https://clerk.example.test", public_key_file=file)
    )
    file.unlink()
    accepted(run(verifier.verify(session_token(now=NOW))))


def test_many_threads_get_the_answers_that_one_gets() -> None:
    """Hits, misses, evictions and refusals at once, with a cache too small for all of them."""
    verifier = make_verifier(token_cache_size=4)
    tokens = [session_token(now=NOW, user_id=f"user_{i}") for i in range(8)]
    forged = session_token(now=NOW, key=signing_key("other"))
    wrong: list[object] = []

    def ask(offset: int) -> None:
        for turn in range(300):
            index = (turn * 7 + offset) % len(tokens)
            if accepted(run(verifier.verify(tokens[index]))).actor.user_id != f"user_{index}":
                wrong.append(index)
            if turn % 50 == 0 and isinstance(run(verifier.verify(forged)), VerifiedToken):
                wrong.append(forged)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert verifier.cached_tokens <= 4


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_no_text_makes_the_verifier_raise(text: str) -> None:
    assert not isinstance(run(_SHARED.verify(text)), VerifiedToken)


@given(header=st.binary(max_size=60), payload=st.binary(max_size=60))
def test_no_signed_bytes_make_the_verifier_raise(header: bytes, payload: bytes) -> None:
    assert not isinstance(
        run(_SHARED.verify(raw_token(header, payload, signing_key()))), VerifiedToken
    )


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(name=st.sampled_from(sorted(session_claims(now=NOW, organization_id="org_a"))), value=_JSON)
def test_no_value_of_a_claim_makes_the_verifier_raise(name: str, value: object) -> None:
    token = session_token(now=NOW, organization_id="org_a", claims={name: value})
    run(_SHARED.verify(token))


_SHARED = make_verifier(
    IssuerSettings(issuer="https://clerk.example.test", public_key=signing_key().public_pem)
)
