"""Batches over HTTP, each the body of a POST. A complete 2xx answer confirms them."""

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import httpx

from pdp.errors import DeliveryFailed, DeliveryRefused
from pdp.outgoing import open_client
from pdp.siem.events import TEXT_CHARACTERS_MAX, Record
from pdp.siem.formats import Format, Line

ANSWER_BYTES_MAX: Final = 1 << 20
_REFUSED: Final = frozenset((400, 413, 422))
"""The content is refused. Other statuses may be those of a proxy, or of a wrong setting."""


class Encoding(NamedTuple):
    """How a batch becomes a body, and what the body of a 2xx answer says about it."""

    content_type: str
    encode: Callable[[Sequence[Record]], bytes]
    check_answer: Callable[[bytes], None] = lambda _: None
    """Raises DeliveryFailed or DeliveryRefused."""


def lines_encoding(line: Line, format_: Format) -> Encoding:
    """Returns the encoding with one record on each line."""

    def encode(records: Sequence[Record]) -> bytes:
        return "".join(f"{line(record, TEXT_CHARACTERS_MAX)}\n" for record in records).encode()

    content_type = "text/plain; charset=utf-8" if format_ == "cef" else "application/x-ndjson"
    return Encoding(content_type, encode)


class HttpDestination:
    """Sends batches to a URL. Redirects are failures."""

    def __init__(
        self,
        url: str,
        encoding: Encoding,
        *,
        authorization: str | None,
        ca_file: Path | None,
        seconds_max: float,
    ) -> None:
        """Creates the destination.

        Args:
            url: An absolute URL.
            encoding: The body of a batch.
            authorization: Value of the header `Authorization`.
            ca_file: Authorities of the receiver's certificate; None: the usual ones.
            seconds_max: For one exchange.
        """
        headers = {"content-type": encoding.content_type}
        if authorization is not None:
            headers["authorization"] = authorization
        self._url = url
        self._encoding = encoding
        self._client = open_client(
            seconds_max=seconds_max,
            bytes_max=ANSWER_BYTES_MAX,
            headers=headers,
            tls=None if ca_file is None else ssl.create_default_context(cafile=ca_file),
        )

    def deliver(self, records: Sequence[Record]) -> None:
        """See `Destination.deliver`."""
        content = self._encoding.encode(records)
        try:
            response = self._client.post(self._url, content=content)
        except httpx.HTTPError as error:
            # Its text may quote the URL; ours names the kind of failure only.
            raise DeliveryFailed(f"the HTTP receiver failed: {type(error).__name__}") from None
        if response.is_success:
            self._encoding.check_answer(response.content)
            return
        message = f"the HTTP receiver answers {response.status_code}"
        if response.status_code in _REFUSED:
            raise DeliveryRefused(message)
        raise DeliveryFailed(message)
