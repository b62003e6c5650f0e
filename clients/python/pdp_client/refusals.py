"""The HTTP answers to refused requests. Knows no framework."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdp_client.errors import Denied, GuardError, PdpUnavailable, Unauthenticated
from pdp_client.values import StepUp

_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a refused request."""

    status: int
    """The HTTP status."""
    headers: Mapping[str, str]
    body: bytes
    """JSON."""


def step_up_challenge(step_up: StepUp) -> str:
    """The value of WWW-Authenticate that requests a verification (RFC 9470, section 3)."""
    return (
        'Bearer error="insufficient_user_authentication", '
        f'acr_values="{step_up.factor.value}", max_age="{step_up.max_age_seconds}"'
    )


def reverification(step_up: StepUp) -> dict[str, Any]:
    """The body that `useReverification` of Clerk's front ends recognises as a request to verify
    again."""
    minutes = max(1, step_up.max_age_seconds // 60)
    return {
        "type": "forbidden",
        "reason": "reverification-error",
        "metadata": {
            "reverification": {"level": step_up.factor.value, "afterMinutes": minutes},
        },
    }


def refusal_of(error: GuardError) -> Refusal:
    """The answer to an error, by docs/guards.md. It contains no reason, because
    `WRONG_ORGANIZATION` would reveal to a stranger that a resource exists. Only a denial that a
    step up would lift contains one."""
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


def trailers_of(error: GuardError) -> dict[str, str]:
    """The trailing metadata of a gRPC call that an error ends, by docs/guards.md."""
    if not isinstance(error, Denied):
        return {}
    trailers = {"decision-id": error.decision.decision_id}
    step_up = error.decision.step_up
    if step_up is not None:
        trailers["www-authenticate"] = step_up_challenge(step_up)
    return trailers
