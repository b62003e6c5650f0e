"""Certificates that end soon, have ended, or cannot be read."""

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from pdp.process.certificates import examine_certificates

NOW = 1_800_000_000.0
DAY = 86_400.0
KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a certificate")])


def pem(begins_at: float, ends_at: float) -> bytes:
    def moment(seconds: float) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)

    return (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(begins_at))
        .not_valid_after(moment(ends_at))
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


@pytest.mark.parametrize(
    ("begins_in_days", "ends_in_days", "event"),
    [
        (-60, 31, None),
        (-60, 29, "certificate_expires_soon"),
        (-60, 0, "certificate_expired"),
        (-60, -1, "certificate_expired"),
        (1, 90, "certificate_not_yet_valid"),
        # A certificate that lives for a day is renewed when two thirds are over.
        (-0.5, 0.5, None),
        (-0.8, 0.2, "certificate_expires_soon"),
    ],
)
def test_a_certificate_that_does_not_hold_for_long_is_warned_of(
    tmp_path: Path, begins_in_days: float, ends_in_days: float, event: str | None
) -> None:
    file = tmp_path / "server.pem"
    file.write_bytes(pem(NOW + begins_in_days * DAY, NOW + ends_in_days * DAY))
    with capture_logs() as logs:
        ends = examine_certificates({"server": file, "client_ca": None}, NOW)
    assert ends == {"server": NOW + ends_in_days * DAY}
    assert [(line["event"], line["certificate"]) for line in logs] == (
        [(event, "server")] if event else []
    )


def test_of_a_chain_the_first_end_counts(tmp_path: Path) -> None:
    file = tmp_path / "chain.pem"
    file.write_bytes(pem(NOW - DAY, NOW + 90 * DAY) + pem(NOW - 60 * DAY, NOW + 5 * DAY))
    with capture_logs() as logs:
        assert examine_certificates({"server": file}, NOW) == {"server": NOW + 5 * DAY}
    assert [(line["event"], line["days_left"]) for line in logs] == [
        ("certificate_expires_soon", 5.0)
    ]


@pytest.mark.parametrize("content", [None, b"", b"not a certificate", b"\xff"])
def test_an_unreadable_certificate_is_logged_and_stops_nothing(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "server.pem"
    if content is not None:
        file.write_bytes(content)
    with capture_logs() as logs:
        assert examine_certificates({"server": file}, NOW) == {}
    assert [line["event"] for line in logs] == ["certificate_unreadable"]


def test_a_private_key_in_the_wrong_file_is_not_quoted(tmp_path: Path) -> None:
    key = KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = tmp_path / "server.pem"
    file.write_bytes(key)
    with capture_logs() as logs:
        assert examine_certificates({"server": file}, NOW) == {}
    secret = key.decode().splitlines()[1]
    assert secret not in repr(logs)
