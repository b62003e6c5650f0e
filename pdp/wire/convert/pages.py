"""Page tokens: where the next page of a list starts.

A token is signed and bound to its query, so that a forged, altered or reused token is
INVALID_ARGUMENT and never reaches SQL.
"""

import base64
import functools
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import Message
from itsdangerous import BadData, Signer, URLSafeSerializer
from itsdangerous.encoding import base64_encode

from pdp.errors import InvalidRequest, Violation
from pdp.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX

CURSOR_CHARACTERS_MAX = 512
"""More than any cursor has. A longer text is truncated, so its signature fails."""
_PAGE_FIELDS = ("page_size", "page_token", "actor_token", "at_least_revision")
"""Fields that may differ between the pages of a query: an actor's tokens live for a minute."""
_NONCE_BYTES = 12


class Pages:
    """Signs and reads page tokens with the deployment's secret, which all replicas share.

    The secret is loaded at the first use: it is in the database, which may be unavailable at start.
    """

    def __init__(self, secret: Callable[[], bytes]) -> None:
        self._secret = secret

    def token(self, request: Message, last_key: Sequence[str]) -> str:
        """A token for the page after `last_key` of this query."""
        return str(self._signer(request).dumps(list(last_key)))

    def cursor(self, place: Sequence[str | int]) -> str:
        """A token for a place in the decision log, valid for every query."""
        # As the serializer does, without its attempt to compress: a page of the log has a cursor
        # for each record.
        content = json.dumps(list(place), separators=(",", ":"))
        return self._place_signer.sign(base64_encode(content)).decode("ascii")

    def place(self, cursor: str) -> tuple[str | int, ...]:
        """The place of a cursor. Raises InvalidRequest if this deployment did not sign it."""
        try:
            return tuple(self._cursor_signer.loads(cursor[:CURSOR_CHARACTERS_MAX]))
        except BadData:
            raise InvalidRequest(Violation("cursor", "is not a cursor of this log")) from None

    def after(self, request: Message) -> tuple[str, ...] | None:
        """The last key of the previous page; None: this is the first page.

        Raises InvalidRequest for a token of another query.
        """
        token: str = request.page_token  # type: ignore[attr-defined]
        if not token:
            return None
        try:
            key = self._signer(request).loads(token)
        except BadData:
            raise _not_genuine() from None
        return tuple(key)

    def seal(self, request: Message, place: Sequence[str | None]) -> str:
        """An encrypted token, else like `token`: the place may be a resource whose existence the
        actor must not learn."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher(request).encrypt(nonce, json.dumps(list(place)).encode(), None)
        return base64.urlsafe_b64encode(nonce + sealed).decode("ascii")

    def unseal(self, request: Message) -> tuple[Any, ...] | None:
        """The place that was sealed for this query; None: the first page.

        Raises InvalidRequest for a token of another query.
        """
        token: str = request.page_token  # type: ignore[attr-defined]
        if not token:
            return None
        try:
            raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
            place = self._cipher(request).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], None)
        except (ValueError, InvalidTag):
            raise _not_genuine() from None
        return tuple(json.loads(place))

    def _cipher(self, request: Message) -> AESGCM:
        # A key for each query, so that random nonces are never near a collision.
        return AESGCM(
            hmac.digest(self._secret(), f"sealed:{_query_of(request)}".encode(), "sha256")
        )

    @functools.cached_property
    def _cursor_signer(self) -> URLSafeSerializer:
        return _serializer(self._secret(), "pdpapi.v1.AuditService:cursor")

    @functools.cached_property
    def _place_signer(self) -> Signer:
        return self._cursor_signer.make_signer(self._cursor_signer.salt)

    def _signer(self, request: Message) -> URLSafeSerializer:
        return _serializer(self._secret(), _query_of(request))


def _query_of(request: Message) -> str:
    """Identifies a query by all fields of the request that are the same for all of its pages."""
    query = type(request)()
    query.CopyFrom(request)
    for name in _PAGE_FIELDS:
        if name in request.DESCRIPTOR.fields_by_name:
            query.ClearField(name)
    digest = hashlib.sha256(query.SerializeToString(deterministic=True)).hexdigest()
    return f"{request.DESCRIPTOR.full_name}:{digest}"


def _not_genuine() -> InvalidRequest:
    return InvalidRequest(Violation("page_token", "is not a token of this query"))


def _serializer(secret: bytes, salt: str) -> URLSafeSerializer:
    return URLSafeSerializer(secret, salt=salt, signer_kwargs={"digest_method": hashlib.sha256})


def page_size(request: Message) -> int:
    """The number of items of a page. Raises InvalidRequest."""
    size: int = request.page_size  # type: ignore[attr-defined]
    if not 0 <= size <= PAGE_ITEMS_MAX:
        raise InvalidRequest(Violation("page_size", f"must be 0 to {PAGE_ITEMS_MAX}, is {size}"))
    return size or PAGE_ITEMS_DEFAULT
