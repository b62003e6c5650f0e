"""Verifiers of session tokens, and what they made of a token."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from pdp.identity import Verifier
from pdp.model import Reason, RefusedToken, VerifiedToken
from pdp.settings import IssuerSettings
from tests.kit.identity.key_server import KeyServer
from tests.kit.tokens import ISSUER, signing_key
from tests.kit.waiting import eventually

NOW = 1_800_000_000.0


def clock() -> float:
    return NOW


def make_verifier(
    *issuers: IssuerSettings,
    clock: Callable[[], float] = clock,
    clock_skew_seconds: float = 5,
    token_lifetime_seconds_max: float = 3600,
    jwks_refresh_seconds: float = 3600,
    jwks_cooldown_seconds: float = 3600,
    token_cache_size: int = 1000,
) -> Verifier:
    return Verifier(
        issuers or (pem_issuer(),),
        clock=clock,
        clock_skew_seconds=clock_skew_seconds,
        token_lifetime_seconds_max=token_lifetime_seconds_max,
        jwks_refresh_seconds=jwks_refresh_seconds,
        jwks_cooldown_seconds=jwks_cooldown_seconds,
        token_cache_size=token_cache_size,
    )


def pem_issuer(issuer: str = ISSUER, *, key: str = "main", **settings: Any) -> IssuerSettings:
    return IssuerSettings(issuer=issuer, public_key=signing_key(key).public_pem, **settings)


@contextlib.contextmanager
def running(server: KeyServer, *, wait: bool = True, **arguments: Any) -> Iterator[Verifier]:
    """A started verifier of the server's issuer, which has fetched its keys once."""
    verifier = make_verifier(IssuerSettings(issuer=server.issuer), **arguments)
    verifier.start()
    try:
        if wait:
            eventually(verifier.ready, what="the first key set")
        yield verifier
    finally:
        verifier.stop()


def accepted(verdict: VerifiedToken | RefusedToken) -> VerifiedToken:
    assert isinstance(verdict, VerifiedToken), verdict
    return verdict


def reason(verdict: VerifiedToken | RefusedToken) -> Reason:
    assert isinstance(verdict, RefusedToken), "the token was accepted"
    return verdict.reason
