"""Sources of an issuer's keys: a PEM text (no network), or the issuer's key set over HTTPS.

One background thread per issuer fetches a key set, so fetches are single-flight by construction: at
the start, at every refresh interval, and early if a token names an unknown kid, at most once per
cooldown. The last set is used until a better one arrives: a fetch that fails, or returns no usable
key, changes nothing. A kid that is missing in the newest set is unknown from then on.
"""

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import httpx
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from pdp.concurrency.waiting import done_within
from pdp.errors import KeysUnavailable
from pdp.identity.keys import (
    KEY_SET_BYTES_MAX,
    KeyRefused,
    KeySetContent,
    parse_key_set,
    read_key_set,
)
from pdp.limits import IDENTIFIER_CHARACTERS_MAX
from pdp.outgoing import BoundExceeded, Client, open_client
from pdp.settings import IssuerSettings

log = logging.getLogger(__name__)

FETCH_SECONDS_MAX = 2.0
"""One fetch, from the name lookup to the last byte of the body."""
WAIT_SECONDS_MAX = 1.0
_RETRY_SECONDS = 1.0
"""Pause between fetches until the first one succeeds: no token can be verified before."""


@dataclass(frozen=True, slots=True)
class KeyFetches:
    """Counts of the fetches of one issuer's key set, since the start."""

    succeeded: int = 0
    failed: int = 0
    keys_skipped: int = 0
    """Entries that were not usable, summed over the fetches that succeeded."""


class KeySource(Protocol):
    """The keys of one issuer."""

    def current(self, kid: str | None) -> RSAPublicKey | None:
        """The key of this kid, from memory. Never waits."""

    async def find(self, kid: str | None) -> RSAPublicKey | None:
        """The key of this kid, fetched if that is due; None: the issuer has no such key.

        Raises:
            KeysUnavailable: That cannot be determined now.
        """

    def ready(self) -> bool:
        """Whether there are keys in memory."""

    def start(self) -> None:
        """Starts fetching in the background. Call it once."""

    def stop(self) -> None:
        """Ends the fetching; does not wait for a fetch in flight."""

    @property
    def fetches(self) -> KeyFetches:
        """Counts of the fetches so far."""


class PemKey:
    """One key from the settings. Clerk's PEM has no kid, so the token's is ignored."""

    fetches = KeyFetches()

    def __init__(self, key: RSAPublicKey) -> None:
        self._key = key

    def current(self, kid: str | None) -> RSAPublicKey | None:
        """The key, whatever the kid."""
        return self._key

    async def find(self, kid: str | None) -> RSAPublicKey | None:
        """The key, whatever the kid."""
        return self._key

    def ready(self) -> bool:
        """Always true: the key is in the settings."""
        return True

    def start(self) -> None:
        """Does nothing: there is nothing to fetch."""

    def stop(self) -> None:
        """Does nothing: there is nothing to fetch."""


class RemoteKeySet:
    """The key set of one issuer, kept fresh from `start()` until `stop()`."""

    def __init__(
        self, issuer: str, url: str, *, refresh_seconds: float, cooldown_seconds: float
    ) -> None:
        self._issuer = issuer
        self._url = url
        self._refresh_seconds = refresh_seconds
        self._cooldown_seconds = cooldown_seconds
        self._keys: Mapping[str, RSAPublicKey] | None = None  # swapped whole, read without a lock
        self._fetches = KeyFetches()
        self._failure = ""
        """Why the last fetch failed; empty if it succeeded."""
        self._changed = threading.Condition()
        # Guarded by _changed:
        self._begun = 0
        self._ended = 0
        self._last_succeeded = False
        self._asked = False
        self._asked_at = -float("inf")
        self._in_flight: Future[None] = Future()
        """Done when the fetch in flight, or else the last fetch, has ended."""
        self._next: Future[None] = Future()
        """Done when the next fetch has ended."""
        self._stopping = False

    @property
    def fetches(self) -> KeyFetches:
        """Counts of the fetches so far."""
        return self._fetches

    def ready(self) -> bool:
        """Whether a fetch has succeeded since the start."""
        return self._keys is not None

    def current(self, kid: str | None) -> RSAPublicKey | None:
        """The key of this kid from the last successful fetch. Never waits."""
        keys = self._keys
        return keys.get(kid) if keys is not None and kid is not None else None

    async def find(self, kid: str | None) -> RSAPublicKey | None:
        """The key of this kid; if it is not in memory, waits for a recent fetch.

        Raises:
            KeysUnavailable: no recent fetch ended in time.
        """
        key = self.current(kid)
        if key is not None:
            return key
        if kid is None or not 0 < len(kid) <= IDENTIFIER_CHARACTERS_MAX:
            return None  # no key set can hold it
        await self._await_fetch()
        return self.current(kid)

    def start(self) -> None:
        """Starts the thread that fetches. Call it once."""
        client = _open_client()
        threading.Thread(target=self._run, args=(client,), name="pdp-key-set", daemon=True).start()

    def stop(self) -> None:
        """Ends the thread; does not wait for a fetch in flight."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    async def _await_fetch(self) -> None:
        """Waits until the key set is recent enough to say that a kid is unknown.

        Raises:
            KeysUnavailable: It is not within WAIT_SECONDS_MAX.
        """
        with self._changed:
            now = time.monotonic()
            in_flight = self._begun > self._ended or self._asked
            if not in_flight:
                if now < self._asked_at + self._cooldown_seconds:
                    self._require_last_fetch()
                    return
                self._asked, self._asked_at = True, now
                self._changed.notify_all()
            # A fetch in flight may have been sent before the key was published, but it is the
            # newest result that the cooldown allows.
            ended = self._in_flight if self._begun > self._ended else self._next
        if not await done_within(ended, WAIT_SECONDS_MAX):
            raise KeysUnavailable("the issuer's keys are being fetched", issuer=self._issuer)
        self._require_last_fetch()

    def _require_last_fetch(self) -> None:
        if not self._last_succeeded:
            raise KeysUnavailable("the issuer's keys cannot be fetched", issuer=self._issuer)

    def _run(self, client: Client) -> None:
        with client:
            while True:
                with self._changed:
                    if self._stopping:
                        return
                    self._begun += 1
                    self._asked = False
                    self._in_flight, self._next = self._next, Future()
                content = self._fetch(client)
                with self._changed:
                    if content is not None:
                        self._keys = _with_known_objects(content.keys, self._keys or {})
                    self._last_succeeded = content is not None
                    self._ended = self._begun
                    self._in_flight.set_result(None)
                    pause = _RETRY_SECONDS if self._keys is None else self._refresh_seconds
                    self._changed.wait_for(lambda: self._asked or self._stopping, pause)

    def _fetch(self, client: Client) -> KeySetContent | None:
        count = self._fetches
        try:
            content = parse_key_set(_download(client, self._url))
        except Exception as error:  # noqa: BLE001  # after any error the next fetch must follow
            # Our own text, or the type alone: a library's text may quote what the server sent.
            ours = isinstance(error, KeyRefused | BoundExceeded)
            why = str(error) if ours else type(error).__name__
            if why != self._failure:  # logged once; the metrics count repetitions
                log.warning("key set of %s could not be fetched: %s", self._issuer, why)
            self._failure = why
            self._fetches = KeyFetches(count.succeeded, count.failed + 1, count.keys_skipped)
            return None
        self._failure = ""
        if content.skipped:
            log.warning("key set of %s: %d unusable keys", self._issuer, content.skipped)
        self._fetches = KeyFetches(
            count.succeeded + 1, count.failed, count.keys_skipped + content.skipped
        )
        return content


def examine_key_set(url: str) -> tuple[KeySetContent, httpx.Headers]:
    """Fetches a key set once, for diagnosis.

    Returns:
        The key set and the headers of the response.

    Raises:
        KeyRefused: The response is not a key set.
        httpx.HTTPError: The request failed.
    """
    with _open_client() as client:
        headers = httpx.Headers()
        client.event_hooks = {"response": [lambda response: headers.update(response.headers)]}
        return read_key_set(_download(client, url)), headers


def key_set_url(settings: IssuerSettings) -> str:
    """The URL of the issuer's key set."""
    return settings.jwks_url or f"{settings.issuer}/.well-known/jwks.json"


def _open_client() -> Client:
    return open_client(
        seconds_max=FETCH_SECONDS_MAX,
        bytes_max=KEY_SET_BYTES_MAX,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
    )


def _with_known_objects(
    fetched: Mapping[str, RSAPublicKey], known: Mapping[str, RSAPublicKey]
) -> Mapping[str, RSAPublicKey]:
    """The fetched keys. An unchanged key stays the same object, because cached tokens refer to the
    object that verified them."""
    return {kid: known[kid] if known.get(kid) == key else key for kid, key in fetched.items()}


def _download(client: Client, url: str) -> bytes:
    """The body as it was sent. Raises KeyRefused or httpx.HTTPError."""
    with client.stream("GET", url) as response:
        if response.status_code != httpx.codes.OK:
            raise KeyRefused(f"HTTP status {response.status_code}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise KeyRefused("a content encoding that was not asked for")
        return b"".join(response.iter_raw())
