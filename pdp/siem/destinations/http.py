"""Batches over HTTP: one line for each record in the body of a POST. A 2xx answer confirms them."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from pdp.errors import DeliveryFailed, DeliveryRefused
from pdp.outgoing import open_client
from pdp.siem.events import TEXT_CHARACTERS_MAX
from pdp.siem.formats import Format, Line

if TYPE_CHECKING:
    from google.protobuf.message import Message

ANSWER_BYTES_MAX: Final = 1 << 20
_REFUSED: Final = frozenset((400, 413, 422))
"""The content is refused. Other statuses may be those of a proxy, or of a wrong setting."""


class HttpDestination:
    """Sends batches to a URL. Redirects are failures."""

    def __init__(
        self,
        url: str,
        line: Line,
        format_: Format,
        *,
        authorization: str | None,
        ca_file: Path | None,
        seconds_max: float,
    ) -> None:
        """Creates the destination.

        Args:
            url: An absolute URL.
            line: The format.
            format_: Its name, which determines the content type.
            authorization: Value of the header `Authorization`.
            ca_file: Authorities of the receiver's certificate; None: the usual ones.
            seconds_max: For one exchange.
        """
        content_type = "text/plain; charset=utf-8" if format_ == "cef" else "application/x-ndjson"
        headers = {"content-type": content_type}
        if authorization is not None:
            headers["authorization"] = authorization
        self._url = url
        self._line = line
        self._client = open_client(
            seconds_max=seconds_max,
            bytes_max=ANSWER_BYTES_MAX,
            headers=headers,
            tls=None if ca_file is None else ssl.create_default_context(cafile=ca_file),
        )

    def deliver(self, records: "Sequence[Message]") -> None:
        """See `Destination.deliver`."""
        line = self._line
        content = "".join(f"{line(record, TEXT_CHARACTERS_MAX)}\n" for record in records)
        try:
            response = self._client.post(self._url, content=content.encode())
        except httpx.HTTPError as error:
            # Its text may quote the URL; ours names the kind of failure only.
            raise DeliveryFailed(f"the HTTP receiver failed: {type(error).__name__}") from None
        if response.is_success:
            return
        message = f"the HTTP receiver answers {response.status_code}"
        if response.status_code in _REFUSED:
            raise DeliveryRefused(message)
        raise DeliveryFailed(message)
