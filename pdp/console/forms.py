"""Requests that change something: whether they come from a page of ours, and their fields.

A POST is accepted if the browser says that a page of this origin sent it, and if it holds a value
that only such a page knows: an HMAC with the secret of the cookie as its key.
"""

import asyncio
import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from pdp.errors import InvalidRequest, LimitExceeded, Violation

FORM_BYTES_MAX: Final = 256 * 1024
FORM_SECONDS_MAX: Final = 10
FORM_FIELDS_MAX: Final = 32
PROOF: Final = "proof"
"""The field with the value that only a page of ours knows."""


def proof_of(secret: str) -> str:
    """The value for the forms of a page that was sent with this secret in its cookie."""
    return hmac.digest(secret.encode(), b"pdp console form", "sha256").hex()


def comes_from(origin: str, request: Request) -> bool:
    """Whether a page of this origin sent the request, as the browser says."""
    sent = request.headers.get("origin")
    if sent is not None:
        return sent == origin
    return request.headers.get("sec-fetch-site") == "same-origin"


def proves(form: Mapping[str, str], secret: str) -> bool:
    """Whether a page that was sent with this secret has made the form."""
    return bool(secret) and hmac.compare_digest(
        form.get(PROOF, "").encode("utf-8", "replace"), proof_of(secret).encode()
    )


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, by name; of equal names the last.

    Raises:
        LimitExceeded: It is longer than FORM_BYTES_MAX.
        InvalidRequest: It is not a form, has too many fields, or does not arrive in time.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidRequest(Violation("form", "is not application/x-www-form-urlencoded"))
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_SECONDS_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > FORM_BYTES_MAX:
                    raise LimitExceeded("form_bytes_max", FORM_BYTES_MAX, len(body))
    except (TimeoutError, ClientDisconnect):
        raise InvalidRequest(Violation("form", "did not arrive in time")) from None
    try:
        fields = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=FORM_FIELDS_MAX,
            errors="replace",
        )
    except ValueError:
        raise InvalidRequest(Violation("form", "is not a form, or has too many fields")) from None
    return dict(fields)
