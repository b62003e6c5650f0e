"""Binds an actor to a session of SQLAlchemy, for row-level security.

    with Session(engine) as session:
        act_as(session, Actor(user, session_id, organization))

Each transaction of the session begins with the actor, so that a commit in the middle of a request
does not lose it, and a connection that goes back to the pool has none.
"""

from typing import Any, Final

from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session

from pdp_client.rls import SETTING, Actor

_KEY: Final = "pdp_client.rls.actor"
_BIND: Final = text("SELECT set_config(:setting, :actor, true)")


def act_as(session: Session, actor: Actor | None) -> None:
    """Binds an actor to all transactions of a session that begin from now on. None: nobody, who
    has no rows. Of an `AsyncSession` take its `sync_session`.

    Raises RuntimeError if the session is in a transaction already: it has begun as somebody else.
    """
    if session.in_transaction():
        raise RuntimeError("the session is in a transaction already: bind the actor before it")
    session.info[_KEY] = actor


@event.listens_for(Session, "after_begin")
def _begun(session: Session, _transaction: Any, connection: Connection) -> None:
    actor = session.info.get(_KEY)
    # Other databases have no row-level security, so there is nothing to bind to.
    if actor is not None and connection.dialect.name == "postgresql":
        connection.execute(_BIND, {"setting": SETTING, "actor": actor.setting()})
