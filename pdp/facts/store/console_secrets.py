"""Secrets of the console: one-time links and sessions. Only their hashes are stored.

So a copy of the database lets nobody in. A link works once, and signing out ends a session, on
whichever replica. A hash includes the epoch: after a restore or a failover no secret of before is
valid, because its use, or its end, may be lost.
"""

import enum
import hashlib
import json
import secrets
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select

from pdp.clock import Clock
from pdp.database.engine import begin_read, begin_write
from pdp.facts.store.state import read_state
from pdp.facts.store.tables import console_secrets

_SECRET_BYTES = 32
_SECRET_CHARACTERS_MAX = 64

Content = dict[str, Any]


class SecretKind(enum.Enum):
    """What a secret is good for."""

    LINK = "link"
    SESSION = "session"


class ConsoleSecrets:
    """Every method raises DatabaseUnavailable."""

    def __init__(self, engine: Engine, *, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def create(self, kind: SecretKind, content: Content, seconds: float) -> str:
        """Stores `content` for so many seconds; returns the secret, URL-safe text."""
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        now = self._clock()
        row = {
            "kind": kind.value,
            "content": json.dumps(content),
            "expires_at": now + seconds,
        }
        table = console_secrets
        with begin_write(self._engine) as connection:
            connection.execute(delete(table).where(table.c.expires_at <= now))
            connection.execute(insert(table).values(row | {"digest": _digest(connection, secret)}))
        return secret

    def read(self, kind: SecretKind, secret: str) -> Content | None:
        """Returns what is stored for a secret; None: nothing, or no longer."""
        table = console_secrets.c
        with begin_read(self._engine) as connection:
            query = select(table.content).where(
                table.digest == _digest(connection, secret),
                table.kind == kind.value,
                table.expires_at > self._clock(),
            )
            content = connection.execute(query).scalar_one_or_none()
        return None if content is None else _content(content)

    def take(self, kind: SecretKind, secret: str) -> Content | None:
        """Returns what is stored for a secret, and deletes it: of concurrent calls, one gets it."""
        table = console_secrets
        with begin_write(self._engine) as connection:
            taking = (
                delete(table)
                .where(
                    table.c.digest == _digest(connection, secret),
                    table.c.kind == kind.value,
                    table.c.expires_at > self._clock(),
                )
                .returning(table.c.content)
            )
            content = connection.execute(taking).scalar_one_or_none()
        return None if content is None else _content(content)


def _digest(connection: Connection, secret: str) -> str:
    text = f"{read_state(connection).epoch}\n{secret[:_SECRET_CHARACTERS_MAX]}"
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _content(text: str) -> Content:
    content: Content = json.loads(text)
    return content
