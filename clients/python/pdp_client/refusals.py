"""What a browser is answered. Knows no framework."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pdp_client.errors import Denied, GuardError, PdpUnavailable, Unauthenticated

_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer to a request that does not go on."""

    status: int
    """Of HTTP."""
    headers: Mapping[str, str]
    body: bytes
    """JSON."""


def refusal_of(error: GuardError) -> Refusal:
    """The answer for an error by docs/guards.md. It says no reason, because `WRONG_ORGANIZATION`
    tells a stranger that there is something."""
    body = {"error": error.word}
    if isinstance(error, Denied):
        body["decision_id"] = error.decision.decision_id
    headers = dict(_HEADERS)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, PdpUnavailable):
        headers["Retry-After"] = "1"
    text = json.dumps(body, separators=(",", ":"))
    return Refusal(error.http_status, headers, text.encode())
