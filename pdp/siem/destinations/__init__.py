"""Destinations of records: files, HTTP, syslog over TLS."""

from collections.abc import Sequence
from typing import Protocol

from pdp.siem.events import Record


class Destination(Protocol):
    """A receiver of records."""

    def deliver(self, records: Sequence[Record]) -> None:
        """Sends records in their order; returns once the destination has confirmed all of them.

        Takes a bounded time.

        Raises:
            DeliveryFailed: They are not confirmed.
            DeliveryRefused: They are refused because of their content.
        """
