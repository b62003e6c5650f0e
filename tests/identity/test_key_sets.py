"""Key sets over HTTP, against a real server: refresh, single flight, cooldown, last good set."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from pdp.errors import KeysUnavailable
from pdp.identity.key_sets import WAIT_SECONDS_MAX
from pdp.model import Reason, VerifiedToken
from pdp.settings import IssuerSettings
from tests.kit.identity.key_server import KeyServer, Mode
from tests.kit.identity.verifiers import NOW, accepted, make_verifier, reason, running
from tests.kit.stall import Stopwatch
from tests.kit.tokens import session_token, signing_key
from tests.kit.waiting import eventually, run

KEY = signing_key()


def token_of(server: KeyServer, name: str = "main") -> str:
    return session_token(now=NOW, issuer=server.issuer, key=signing_key(name))


def token_with_kid(server: KeyServer, kid: str | None) -> str:
    if kid is None:
        return session_token(now=NOW, issuer=server.issuer, without_header=["kid"])
    return session_token(now=NOW, issuer=server.issuer, header={"kid": kid})


@contextlib.contextmanager
def capture_logs_of(name: str) -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(name).addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger(name).removeHandler(handler)


def failed(verifier, server: KeyServer, more_than: int = 0) -> bool:
    return verifier.key_fetches[server.issuer].failed > more_than


def test_the_key_set_is_fetched_at_the_start_and_without_a_request() -> None:
    with KeyServer([KEY.jwk()]) as server, running(server) as verifier:
        assert server.fetches == 1
        assert accepted(run(verifier.verify(token_of(server)))).key_id == KEY.kid
        assert server.fetches == 1
        assert server.request_headers["accept-encoding"] == "identity"
        assert "authorization" not in server.request_headers


def test_another_url_may_be_configured() -> None:
    with KeyServer([KEY.jwk()]) as server:
        verifier = make_verifier(
            IssuerSettings(issuer="https://clerk.example.test", jwks_url=server.jwks_url)
        )
        verifier.start()
        eventually(verifier.ready)
        accepted(run(verifier.verify(session_token(now=NOW))))
        verifier.stop()


def test_a_new_key_is_fetched_when_a_token_first_names_it() -> None:
    with KeyServer([KEY.jwk()]) as server, running(server) as verifier:
        server.keys = [KEY.jwk(), signing_key("other").jwk()]
        accepted(run(verifier.verify(token_of(server, "other"))))
        assert server.fetches == 2
        accepted(run(verifier.verify(token_of(server))))


def test_unknown_kids_cause_one_fetch_a_cooldown() -> None:
    with KeyServer([KEY.jwk()]) as server, running(server, jwks_cooldown_seconds=3600) as verifier:
        for i in range(200):
            token = token_with_kid(server, f"ins_{i}")
            assert reason(run(verifier.verify(token))) is Reason.TOKEN_KEY_UNKNOWN
        assert server.fetches == 2
        accepted(run(verifier.verify(token_of(server))))

    # Control: without a cooldown each unknown kid costs a fetch.
    with KeyServer([KEY.jwk()]) as server, running(server, jwks_cooldown_seconds=0) as verifier:
        for i in range(5):
            run(verifier.verify(token_with_kid(server, f"ins_{i}")))
        assert server.fetches == 6


def test_the_cooldown_ends() -> None:
    with KeyServer([KEY.jwk()]) as server, running(server, jwks_cooldown_seconds=0.1) as verifier:
        assert reason(run(verifier.verify(token_of(server, "other")))) is Reason.TOKEN_KEY_UNKNOWN
        server.keys = [signing_key("other").jwk()]
        eventually(
            lambda: isinstance(run(verifier.verify(token_of(server, "other"))), VerifiedToken)
        )


@pytest.mark.parametrize("kid", [None, "", "x" * 257])
def test_a_kid_that_no_set_can_hold_causes_no_fetch(kid: str | None) -> None:
    with KeyServer([KEY.jwk()]) as server, running(server) as verifier:
        assert reason(run(verifier.verify(token_with_kid(server, kid)))) is Reason.TOKEN_KEY_UNKNOWN
        assert server.fetches == 1


@pytest.mark.parametrize(
    "kid", ["../../../etc/passwd", "https://evil.example", "ins_' OR 1=1", "\0"]
)
def test_a_kid_is_only_compared(kid: str) -> None:
    with KeyServer([KEY.jwk()]) as server, running(server) as verifier:
        assert reason(run(verifier.verify(token_with_kid(server, kid)))) is Reason.TOKEN_KEY_UNKNOWN
        assert server.fetches == 2


def test_requests_wait_for_one_fetch_together_and_none_for_long() -> None:
    with KeyServer([KEY.jwk()]) as server, running(server) as verifier:
        server.mode = Mode.SLOW
        known = token_of(server)
        unknown = [token_with_kid(server, f"ins_{number}") for number in range(200)]

        async def ask(token: str) -> tuple[str, float]:
            start = time.monotonic()
            try:
                outcome = type(await verifier.verify(token)).__name__
            except KeysUnavailable:
                outcome = "unavailable"
            return outcome, time.monotonic() - start

        async def many() -> list[tuple[str, float]]:
            waiting = [asyncio.create_task(ask(token)) for token in unknown]
            await asyncio.sleep(0)
            accepted(await verifier.verify(known))
            assert watch.seconds < WAIT_SECONDS_MAX  # known kids do not wait
            return await asyncio.gather(*waiting)

        watch = Stopwatch()
        outcomes = run(many())
        assert {outcome for outcome, _ in outcomes} == {"unavailable"}
        assert max(took for _, took in outcomes) < 2 * WAIT_SECONDS_MAX + watch.stalled
        assert server.fetches == 2
        server.release()


def test_waiting_requests_are_answered_by_the_fetch_they_wait_for() -> None:
    with KeyServer([KEY.jwk()]) as server, running(server) as verifier:
        server.mode = Mode.SLOW
        server.keys = [KEY.jwk(), signing_key("other").jwk()]
        verdicts: list[object] = []
        thread = threading.Thread(
            target=lambda: verdicts.append(run(verifier.verify(token_of(server, "other"))))
        )
        thread.start()
        eventually(lambda: server.fetches == 2)
        server.release()
        thread.join()
        assert isinstance(verdicts[0], VerifiedToken)


def test_before_the_first_key_set_there_is_no_verdict() -> None:
    with KeyServer([KEY.jwk()]) as server:
        server.mode = Mode.ERROR
        with running(server, wait=False) as verifier:
            eventually(lambda: failed(verifier, server))
            with pytest.raises(KeysUnavailable):
                run(verifier.verify(token_of(server)))
            assert verifier.ready() is False
            server.mode = Mode.KEYS
            eventually(verifier.ready, seconds=5)
            accepted(run(verifier.verify(token_of(server))))


def test_an_endpoint_that_is_not_there_gives_no_verdict() -> None:
    with KeyServer() as server:
        issuer = server.issuer
    verifier = make_verifier(IssuerSettings(issuer=issuer))
    verifier.start()
    with pytest.raises(KeysUnavailable) as error:
        run(verifier.verify(session_token(now=NOW, issuer=issuer)))
    assert "eyJ" not in str(error.value)
    verifier.stop()


def test_an_issuer_without_keys_leaves_the_others_alone() -> None:
    with KeyServer() as down, KeyServer([KEY.jwk()]) as up:
        down.mode = Mode.ERROR
        verifier = make_verifier(
            IssuerSettings(issuer=down.issuer), IssuerSettings(issuer=up.issuer)
        )
        verifier.start()
        eventually(verifier.ready)
        accepted(run(verifier.verify(token_of(up))))
        with pytest.raises(KeysUnavailable):
            run(verifier.verify(token_of(down)))
        verifier.stop()


BAD_MODES = [
    Mode.ERROR,
    Mode.HTML,
    Mode.HUGE,
    Mode.GZIP,
    Mode.GZIP_BOMB,
    Mode.REDIRECT,
    Mode.SLOW,
    Mode.TRICKLE,
    Mode.TRICKLE_HEADERS,
]


@pytest.mark.parametrize("mode", BAD_MODES, ids=lambda mode: mode.name)
def test_the_last_good_set_serves_while_the_endpoint_fails(mode: Mode) -> None:
    with KeyServer([KEY.jwk()]) as server, running(server, jwks_refresh_seconds=0.05) as verifier:
        server.keys = [signing_key("other").jwk()]
        server.mode = mode
        eventually(lambda: failed(verifier, server), what=f"a failed fetch in mode {mode.name}")
        accepted(run(verifier.verify(token_of(server))))
        assert server.redirects_followed == 0
        server.release()
        server.mode = Mode.KEYS
        eventually(lambda: not isinstance(run(verifier.verify(token_of(server))), VerifiedToken))
        accepted(run(verifier.verify(token_of(server, "other"))))


BAD_BODIES = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b'{"keys":null}',
    b'{"keys":{}}',
    b'{"keys":[]}',
    b'{"keys":[null,7,"x",[]]}',
    b'{"keys":' + b"[" * 100_000,
    b'{"keys":[],"keys":[]}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_the_last_good_set_serves_while_the_endpoint_talks_nonsense(body: bytes) -> None:
    with KeyServer([KEY.jwk()]) as server, running(server, jwks_refresh_seconds=0.05) as verifier:
        server.body = body
        server.mode = Mode.BODY
        eventually(lambda: failed(verifier, server))
        accepted(run(verifier.verify(token_of(server))))


def test_an_unknown_kid_is_no_verdict_while_the_endpoint_fails() -> None:
    """The set at hand may be older than the key."""
    with KeyServer([KEY.jwk()]) as server, running(server) as verifier:
        server.mode = Mode.ERROR
        for _ in range(3):
            with pytest.raises(KeysUnavailable):
                run(verifier.verify(token_of(server, "other")))
        assert server.fetches == 2


def test_a_removed_key_stops_verifying_with_the_next_refresh() -> None:
    with KeyServer([KEY.jwk()]) as server, running(server, jwks_refresh_seconds=0.05) as verifier:
        accepted(run(verifier.verify(token_of(server))))
        server.keys = [signing_key("other").jwk()]
        eventually(lambda: not isinstance(run(verifier.verify(token_of(server))), VerifiedToken))
        assert reason(run(verifier.verify(token_of(server)))) is Reason.TOKEN_KEY_UNKNOWN


@pytest.mark.parametrize("mode", [Mode.TRICKLE, Mode.TRICKLE_HEADERS], ids=lambda mode: mode.name)
def test_a_trickling_endpoint_delays_the_removal_of_a_key_by_one_fetch_at_most(
    monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """The bound that is documented: the refresh interval and one fetch. The endpoint trickles while
    a fetch is under way, and serves the new set afterwards."""
    monkeypatch.setattr("pdp.identity.key_sets.FETCH_SECONDS_MAX", 0.5)
    with KeyServer([KEY.jwk()]) as server, running(server, jwks_refresh_seconds=0.5) as verifier:
        accepted(run(verifier.verify(token_of(server))))
        server.keys = [signing_key("other").jwk()]
        server.mode = mode
        eventually(lambda: server.fetches == 2)
        server.mode = Mode.KEYS  # for the next fetch; the one under way goes on trickling
        with capture_logs_of("pdp.identity.key_sets") as lines:
            eventually(lambda: verifier.key_fetches[server.issuer].failed == 1)
            eventually(
                lambda: not isinstance(run(verifier.verify(token_of(server))), VerifiedToken)
            )
        assert verifier.key_fetches[server.issuer].failed == 1
        assert lines == [f"key set of {server.issuer} could not be fetched: took more than 0.5 s"]


def test_fetches_and_unusable_keys_are_counted() -> None:
    bad = signing_key("other").jwk(kty="oct")
    with (
        KeyServer([KEY.jwk(), bad]) as server,
        running(server, jwks_refresh_seconds=0.05) as verifier,
    ):
        eventually(lambda: verifier.key_fetches[server.issuer].succeeded >= 2)
        counts = verifier.key_fetches[server.issuer]
        assert (counts.keys_skipped, counts.failed) == (counts.succeeded, 0)
        server.mode = Mode.HTML
        eventually(lambda: failed(verifier, server))
