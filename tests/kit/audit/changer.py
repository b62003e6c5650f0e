"""Processes that change policy and facts, to be killed. `python -m tests.kit.audit.changer` is
their parent, as `tests.kit.audit.writer`.

An order may name a `url` instead of a directory with a SQLite file, and `kill_at`: the child then
kills itself before or after that SQL statement or commit. It says `ack REVISION 0` for each commit.
"""

import os
import signal
from itertools import count
from typing import Any

from sqlalchemy import Engine, event

from pdp.administration_records import Author, Source
from pdp.administrator import Administrator
from pdp.audit import append_records
from pdp.clerk.directory import Directory
from pdp.clerk.observations import MembershipSeen, Message, OrganizationSeen, UserSeen
from pdp.database.engine import open_engine
from pdp.facts import Store
from pdp.model import Permission, Role, Rule
from tests.kit.audit.writer import main, say

DOCUMENT = """
version: 1
permissions: {course:view: "", course:edit: ""}
roles:
  R1: {allow: [course:view]}
  R2: {inherits: [R1], allow: [course:edit]}
grants:
  - {role: R2, user: user_1}
"""


def change_some(engine: Engine) -> None:
    """Changes through each way, and appends the records between."""
    store = Store(engine)
    author = Author(Source.API, "caller", "a reason")
    written: list[int] = []
    administrator = Administrator(store, written.append)
    directory = Directory(store, written.append, default_role="R1")
    user = UserSeen(id="user_2", updated_at=5, noticed_at=5, attributes={"token": "hidden"})
    organization = OrganizationSeen(id="org_1", updated_at=5, noticed_at=5)
    membership = MembershipSeen(
        id="orgmem_1",
        updated_at=5,
        noticed_at=5,
        created_at=5,
        role="org:member",
        organization_id="org_1",
        user_id="user_2",
    )
    steps = (
        lambda: administrator.apply(DOCUMENT, author=author),
        lambda: append_records(engine),
        lambda: administrator.update(Permission("course:edit", "x"), author),
        lambda: directory.observe_messages([Message("msg_1", user), Message("msg_2", membership)]),
        lambda: directory.observe([organization], run=1),
        lambda: append_records(engine),
        lambda: administrator.delete(Rule, ("R1.allow.course:view",), author),
        lambda: administrator.revoke_session("sess_1", "user_1", author),
        lambda: administrator.apply("version: 1\nroles: {}\ngrants: []", author=author),
        lambda: administrator.create(Role("R9"), author),
        lambda: append_records(engine),
    )
    for step in steps:
        step()
        while written:
            say(f"ack {written.pop(0)} 0")
    say("stopped")


def kill_at(engine: Engine, number: int) -> None:
    """Kills the process at the statement or commit with this number: before it or after it."""
    counter = count(1)

    def reached(*_: Any, **__: Any) -> None:
        if next(counter) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("before_cursor_execute", "after_cursor_execute", "commit", "checkin"):
        event.listen(engine.pool if name == "checkin" else engine, name, reached)


def run_order(order: dict[str, Any]) -> None:
    engine = open_engine(order.get("url") or f"sqlite:///{order['directory']}/pdp.db")
    if "kill_at" in order:
        kill_at(engine, order["kill_at"])
    change_some(engine)
    engine.dispose()


if __name__ == "__main__":
    main(run_order)
