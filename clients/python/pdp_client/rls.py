"""Binds an actor to a transaction, for row-level security that `pdp rls generate` has made.

    with transaction(connection, Actor(user, session, organization)):
        connection.execute("SELECT * FROM courses")

The actor must come from a session token that was verified: the database believes what it is given.
For SQLAlchemy see `pdp_client.rls_sqlalchemy`.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection

SETTING: Final = "pdp.actor"
_IDLE: Final = 0
"""`psycopg.pq.TransactionStatus.IDLE`"""


@dataclass(frozen=True, slots=True)
class Actor:
    """The user of a verified session token (`sub`), its session (`sid`), and the active
    organization (`o.id` or `org_id`), if there is one.

    Raises TypeError if one of them is not a text, ValueError if user or session is empty.
    """

    user: str
    session: str
    organization: str | None = None

    def __post_init__(self) -> None:
        for name in ("user", "session", "organization"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "organization" and value is None):
                raise TypeError(f"{name} must be a str")
            if not value and name != "organization":
                raise ValueError(f"{name} is empty: a token without it is not one of a session")

    def setting(self) -> str:
        """The value of the setting `pdp.actor`."""
        return json.dumps(
            {"user": self.user, "organization": self.organization, "session": self.session}
        )


@contextmanager
def transaction(connection: "Connection[Any]", actor: Actor) -> Iterator[None]:
    """A transaction of psycopg with an actor. Afterwards the connection has none.

    Raises RuntimeError if the connection is in a transaction already, whose actor it would change.
    """
    _check_idle(connection)
    with connection.transaction():
        connection.execute(_BIND, (SETTING, actor.setting()))
        yield


@asynccontextmanager
async def async_transaction(
    connection: "AsyncConnection[Any]", actor: Actor
) -> AsyncIterator[None]:
    """`transaction` for an asynchronous connection."""
    _check_idle(connection)
    async with connection.transaction():
        await connection.execute(_BIND, (SETTING, actor.setting()))
        yield


_BIND: Final = "SELECT set_config(%s, %s, true)"


def _check_idle(connection: Any) -> None:
    if connection.info.transaction_status != _IDLE:
        raise RuntimeError(
            "the connection is in a transaction already: begin one with an actor only outside of"
            " others"
        )
