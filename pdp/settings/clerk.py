"""The Clerk instance of the users, and its secrets."""

import base64
import re
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator
from pydantic_settings import NoDecode

from pdp.settings.addresses import https_or_loopback
from pdp.settings.base import Frozen, listed

WEBHOOK_SECRET_BYTES_MIN = 24
WEBHOOK_SECRET_BYTES_MAX = 64


class ClerkSettings(Frozen):
    """The Clerk instance of the users."""

    instance_id: Annotated[str, StringConstraints(pattern=r"^ins_[0-9A-Za-z]+$")] | None = None
    """The instance whose webhooks and Backend API are trusted; also the `kid` of its tokens."""
    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Signing secrets of the webhook endpoint (`whsec_...`): several while one is being replaced.
    In the environment: separated by commas, or a JSON list. Empty: no webhooks are accepted."""
    secret_key: SecretStr | None = None
    """`sk_live_...` or `sk_test_...`: for the Backend API."""
    api_url: str = "https://api.clerk.com/v1"
    provisioning: bool = False
    """Whether the first valid token of an unknown user creates the user."""
    default_role: str | None = None
    """A role that is granted everywhere to each new user, from every source."""
    reconcile_seconds: float = Field(default=0, ge=0, allow_inf_nan=False)
    """How often the database is compared with the Backend API; 0: never."""
    push_claims: bool = False
    """Write a user's role names into Clerk's `public_metadata` whenever their grants change."""

    @field_validator("webhook_secrets", mode="before")
    @classmethod
    def _secrets_from_text(cls, value: Any) -> Any:
        return listed(value) if isinstance(value, str) else value

    @field_validator("secret_key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        # Often the line break at the end of a file, which a header cannot contain.
        if key is not None and not re.fullmatch(r"[!-~]+", key.get_secret_value()):
            raise ValueError("is empty, or holds a space, a line break or another odd character")
        return key

    @field_validator("webhook_secrets")
    @classmethod
    def _are_secrets(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in secrets:
            problem = webhook_secret_problem(secret.get_secret_value())
            if problem is not None:
                raise ValueError(problem)
        return secrets

    @field_validator("api_url")
    @classmethod
    def _is_https_or_loopback(cls, value: str) -> str:
        return https_or_loopback(value.rstrip("/"))

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        if self.webhook_secrets and self.instance_id is None:
            raise ValueError("webhook_secrets need the instance_id that webhooks must name")
        if self.reconcile_seconds or self.push_claims:
            if self.secret_key is None:
                raise ValueError("reconcile_seconds and push_claims need the secret_key")
            if self.instance_id is None:
                raise ValueError(
                    "reconcile_seconds and push_claims need the instance_id that the key belongs to"
                )
        return self


def webhook_secret_problem(secret: str) -> str | None:
    """What is wrong with a webhook signing secret, without quoting it; None: it is well formed.

    Source: Standard Webhooks, `whsec_` and the base64 of 24 to 64 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        return "a webhook secret is whsec_ and base64"
    if not WEBHOOK_SECRET_BYTES_MIN <= len(key) <= WEBHOOK_SECRET_BYTES_MAX:
        return "a webhook secret holds 24 to 64 bytes"
    return None
