"""Binds an actor to a session of SQLAlchemy, for row-level security.

    with Session(engine) as session:
        act_as(session, Actor(user, session_id, organization))

Each transaction of the session begins with the actor, so that a commit in the middle of a request
does not lose it, and a connection that goes back to the pool has none. An `AsyncSession` is bound
in the same way.
"""

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session

from pdp_client.rls import SETTING, Actor

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

_KEY: Final = "pdp_client.rls.actor"
_BIND: Final = text("SELECT set_config(:setting, :actor, true)")


def act_as(session: "Session | AsyncSession", actor: Actor | None) -> None:
    """Binds an actor to all transactions of a session that begin from now on. None: nobody, who
    has no rows.

    Raises RuntimeError if the session is in a transaction already: it has begun as somebody else.
    """
    if session.in_transaction():
        raise RuntimeError("the session is in a transaction already: bind the actor before it")
    session.info[_KEY] = actor  # an AsyncSession has the dictionary of its Session


@event.listens_for(Session, "after_begin")
def _begun(session: Session, _transaction: Any, connection: Connection) -> None:
    actor = session.info.get(_KEY)
    # Other databases have no row-level security, so there is nothing to bind to.
    if actor is not None and connection.dialect.name == "postgresql":
        connection.execute(_BIND, {"setting": SETTING, "actor": actor.setting()})
