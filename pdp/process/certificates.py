"""When the configured certificates end: a warning at the start, and what a metric says."""

from collections.abc import Mapping
from pathlib import Path

import structlog
from cryptography import x509

log = structlog.get_logger("pdp.process.certificates")

SOON_SECONDS = 30 * 86_400.0
SOON_PART = 1 / 3
"""Of its lifetime: a certificate that lives for a day is not always about to end."""


def examine_certificates(files: Mapping[str, Path | None], now: float) -> Mapping[str, float]:
    """Warns of certificates that are not valid at `now` (seconds since 1970-01-01 UTC), or not for
    long. Returns when each file's certificates end, by the same names: of several in a file, the
    first end.

    A file that cannot be read is logged and left out: whoever needs it says so itself.
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
        first = min(certificates, key=lambda one: one.not_valid_after_utc)
        ends[name] = first.not_valid_after_utc.timestamp()
        lifetime = ends[name] - first.not_valid_before_utc.timestamp()
        left = ends[name] - now
        if left <= 0:
            event, write = "certificate_expired", log.error
        elif any(one.not_valid_before_utc.timestamp() > now for one in certificates):
            event, write = "certificate_not_yet_valid", log.error
        elif left < min(SOON_SECONDS, lifetime * SOON_PART):
            event, write = "certificate_expires_soon", log.warning
        else:
            continue
        write(event, certificate=name, file=str(file), days_left=round(left / 86_400, 1))
    return ends
