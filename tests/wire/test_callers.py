"""The identity of a caller: an API key or the one URI of a certificate, and nothing else."""

import hashlib
from collections.abc import Sequence

import pytest
from cryptography import x509

from pdp.errors import CallerUnauthenticated
from pdp.settings import CallerSettings
from pdp.wire.callers import ANONYMOUS, Callers, Proof
from tests.kit.wire.caller_certificates import SPIFFE, certificate, uri

KEY = "pdp_a-key-of-a-caller"
callers = Callers(
    [
        CallerSettings(name="courses", api_key_sha256=hashlib.sha256(KEY.encode()).hexdigest()),
        CallerSettings(name="mesh", spiffe_id=SPIFFE, may=frozenset(("decide", "audit"))),
    ]
)


def identify(*metadata: tuple[str, str], certificate: bytes | None = None) -> str:
    values = [value.encode() for key, value in metadata if key == "authorization"]
    return callers.identify(Proof(values, certificate)).name


def test_an_api_key_names_its_caller() -> None:
    assert identify(("authorization", f"Bearer {KEY}")) == "courses"
    assert identify(("authorization", f"bearer {KEY}")) == "courses"


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer wrong"),),
        (("authorization", f"Bearer Bearer {KEY}"),),
        (("authorization", f"Basic {KEY}"),),
        (("authorization", KEY),),
        (("authorization", "Bearer "),),
        (("authorization", f"Bearer {KEY} "),),
        (("authorization", f"Bearer {KEY}"), ("authorization", "Bearer wrong")),
        (("authorization", f"Bearer {hashlib.sha256(KEY.encode()).hexdigest()}"),),
    ],
)
def test_anything_but_exactly_one_good_key_is_refused(metadata: Sequence[tuple[str, str]]) -> None:
    with pytest.raises(CallerUnauthenticated):
        identify(*metadata)


@pytest.mark.parametrize(
    "header", ["x-pdp-caller", "x-forwarded-user", "x-forwarded-client-cert", "x-forwarded-for"]
)
def test_identity_headers_prove_nothing(header: str) -> None:
    """Oathkeeper CVE-2026-33495, NATS CVE-2026-33223 and CVE-2026-33246."""
    with pytest.raises(CallerUnauthenticated):
        identify((header, SPIFFE), ("x-api-key", KEY))


def test_a_certificate_with_the_one_configured_uri_names_its_caller() -> None:
    assert identify(certificate=certificate(uri(SPIFFE))) == "mesh"
    assert identify(certificate=certificate(uri(SPIFFE), x509.DNSName("a.test"))) == "mesh"


@pytest.mark.parametrize(
    "pem",
    [
        certificate(),
        certificate(common_name=SPIFFE),
        certificate(x509.DNSName("example.test")),
        certificate(uri(SPIFFE + "/more")),
        certificate(uri(SPIFFE[:-1])),
        certificate(uri(SPIFFE.upper())),
        certificate(uri("spiffe://other.test/courses")),
        certificate(uri("spiffe://example.test/*")),
        certificate(uri(SPIFFE), uri("spiffe://example.test/other")),
        certificate(uri("spiffe://example.test/other"), uri(SPIFFE)),
        b"not a certificate",
    ],
)
def test_any_other_certificate_is_nobody(pem: bytes) -> None:
    """NATS CVE-2026-33248: subjects matched by part."""
    with pytest.raises(CallerUnauthenticated):
        identify(certificate=pem)


def test_without_configured_callers_everybody_is_anonymous() -> None:
    assert Callers([]).identify(Proof((), None)) is ANONYMOUS
