"""Destinations of records: files, HTTP, syslog over TLS."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from google.protobuf.message import Message


class Destination(Protocol):
    """A receiver of records."""

    def deliver(self, records: "Sequence[Message]") -> None:
        """Sends records in their order; returns once the destination has confirmed all of them.

        Takes a bounded time.

        Raises:
            DeliveryFailed: They are not confirmed.
            DeliveryRefused: They are refused because of their content.
        """
