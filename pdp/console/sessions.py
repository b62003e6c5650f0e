"""A session of the console: who signed in, as a token for decisions."""

from dataclasses import dataclass, replace
from typing import Any, Final

from pdp.facts.store.console_secrets import ConsoleSecrets, SecretKind
from pdp.model import Actor, VerifiedToken

SESSION_SECONDS: Final = 15 * 60.0
"""How long a session lasts, whatever is done with it."""
_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Session:
    """Who signed in, when."""

    token: VerifiedToken
    """As it was verified when the session began."""
    began_at: float
    organization: str | None
    """The organization that the session sees; None: all of them. It is asked for again on every
    request."""

    def token_at(self, now: float) -> VerifiedToken:
        """The token for a decision: its factors have aged, and it lasts as long as the session."""
        minutes = (now - self.began_at) / _MINUTE
        first, second = self.token.first_factor_minutes, self.token.second_factor_minutes
        return replace(
            self.token,
            expires_at=self.began_at + SESSION_SECONDS,
            first_factor_minutes=None if first is None else first + minutes,
            second_factor_minutes=None if second is None else second + minutes,
        )


def begin_session(
    secrets: ConsoleSecrets, token: VerifiedToken, organization: str | None, now: float
) -> str:
    """Stores a session; returns its secret. Raises DatabaseUnavailable."""
    actor = token.actor
    content: dict[str, Any] = {
        "began_at": now,
        "view_of": organization,
        "user_id": actor.user_id,
        "session_id": actor.session_id,
        "organization_id": actor.organization_id,
        "impersonator_id": actor.impersonator_id,
        "issuer": token.issuer,
        "key_id": token.key_id,
        "claims": dict(token.claims),
        "claimed_permissions": list(token.claimed_permissions),
        "first_factor_minutes": token.first_factor_minutes,
        "second_factor_minutes": token.second_factor_minutes,
        "token_id": token.token_id,
        "fingerprint": token.fingerprint,
    }
    return secrets.create(SecretKind.SESSION, content, SESSION_SECONDS)


def find_session(secrets: ConsoleSecrets, secret: str) -> Session | None:
    """Returns the session with this secret; None: there is none, or it has ended.

    Raises DatabaseUnavailable.
    """
    content = secrets.read(SecretKind.SESSION, secret) if secret else None
    if content is None:
        return None
    began_at, organization = content.pop("began_at"), content.pop("view_of", None)
    actor = Actor(
        content.pop("user_id"),
        content.pop("session_id"),
        content.pop("organization_id"),
        content.pop("impersonator_id"),
    )
    permissions = tuple(content.pop("claimed_permissions"))
    token = VerifiedToken(actor, expires_at=0, claimed_permissions=permissions, **content)
    return Session(token, began_at, organization)


def end_session(secrets: ConsoleSecrets, secret: str) -> None:
    """Ends a session on all replicas. Raises DatabaseUnavailable."""
    secrets.take(SecretKind.SESSION, secret)
