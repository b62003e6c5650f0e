"""Expiry of the configured certificates: a warning at the start, and the value of a metric."""

from collections.abc import Mapping
from pathlib import Path

import structlog
from cryptography import x509

log = structlog.get_logger("pdp.process.certificates")

SOON_SECONDS = 30 * 86_400.0
SOON_PART = 1 / 3
"""Part of the lifetime, so that a certificate of one day is not always about to expire."""


def examine_certificates(files: Mapping[str, Path | None], now: float) -> Mapping[str, float]:
    """Logs a warning about certificates that are not valid at `now`, or expire soon.

    A file that cannot be read is logged and skipped: its user reports the error.

    Args:
        files: Certificate files by name.
        now: Seconds since 1970-01-01 UTC.

    Returns:
        For each name the time when a certificate of the file expires first.
    """
    ends = {}
    for name, file in files.items():
        if file is None:
            continue
        try:
            certificates = x509.load_pem_x509_certificates(file.read_bytes())
        except (OSError, ValueError) as error:
            log.warning("certificate_unreadable", certificate=name, file=str(file), why=str(error))
            continue
        first = min(certificates, key=lambda certificate: certificate.not_valid_after_utc)
        ends[name] = first.not_valid_after_utc.timestamp()
        lifetime = ends[name] - first.not_valid_before_utc.timestamp()
        left = ends[name] - now
        if left <= 0:
            event, write = "certificate_expired", log.error
        elif any(
            certificate.not_valid_before_utc.timestamp() > now for certificate in certificates
        ):
            event, write = "certificate_not_yet_valid", log.error
        elif left < min(SOON_SECONDS, lifetime * SOON_PART):
            event, write = "certificate_expires_soon", log.warning
        else:
            continue
        write(event, certificate=name, file=str(file), days_left=round(left / 86_400, 1))
    return ends
