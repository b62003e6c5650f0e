"""What a browser is answered. Knows no framework."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdp_client.errors import Denied, GuardError, PdpUnavailable, Unauthenticated
from pdp_client.values import StepUp

_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer to a request that does not go on."""

    status: int
    """Of HTTP."""
    headers: Mapping[str, str]
    body: bytes
    """JSON."""


def step_up_challenge(step_up: StepUp) -> str:
    """The value of WWW-Authenticate that asks for a verification (RFC 9470, section 3)."""
    return (
        'Bearer error="insufficient_user_authentication", '
        f'acr_values="{step_up.factor.value}", max_age="{step_up.max_age_seconds}"'
    )


def reverification(step_up: StepUp) -> dict[str, Any]:
    """What `useReverification` of Clerk's front ends takes for a wish to verify again."""
    minutes = max(1, step_up.max_age_seconds // 60)
    return {
        "type": "forbidden",
        "reason": "reverification-error",
        "metadata": {
            "reverification": {"level": step_up.factor.value, "afterMinutes": minutes},
        },
    }


def refusal_of(error: GuardError) -> Refusal:
    """The answer for an error by docs/guards.md. It says no reason, because `WRONG_ORGANIZATION`
    tells a stranger that there is something. A step up is only in a denial that it would lift."""
    body: dict[str, Any] = {"error": error.word}
    headers = dict(_HEADERS)
    if isinstance(error, Denied):
        body["decision_id"] = error.decision.decision_id
        step_up = error.decision.step_up
        if step_up is not None:
            headers["WWW-Authenticate"] = step_up_challenge(step_up)
            body["clerk_error"] = reverification(step_up)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, PdpUnavailable):
        headers["Retry-After"] = "1"
    text = json.dumps(body, separators=(",", ":"))
    return Refusal(error.http_status, headers, text.encode())
