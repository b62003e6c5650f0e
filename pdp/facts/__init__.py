"""Room 3: SQL -> facts at one revision.

In:  a database (`pdp.database.engine.open_engine`), identifiers of actors and resources.
Out: entities (`Store`), and all facts that a decision needs (`Replica.view`), each time exactly as
     they were at one revision.

Never: tokens, conditions, decisions; a decision is never cached, only what it is made from.

Invariants:
1. Every write raises the one revision row as its first statement and names what it touched in
   `changes`. The row's lock makes the order of revisions the order of commits.
2. What is read together is read in one snapshot of the database.
3. A cached value read at revision n is not kept if a later revision was applied meanwhile
   (`snapshot.py` has the rules of the caches, what their keys hold and what empties them).
4. An answer is given only while its revision was confirmed as the newest within the bound, and
   nothing is confirmed without a row in `replicas` by which a barrier knows of it.
5. Identifiers compare byte for byte, only ever as bound parameters, on both engines alike.
6. No text of a driver and nothing of the database's URL leaves the room.
"""

from pdp.database.migrations import migrate
from pdp.facts.replica.barrier import Barriers, Passed
from pdp.facts.replica.change_feed import News, Step, Watch
from pdp.facts.replica.listener import Listener
from pdp.facts.replica.replica import Replica
from pdp.facts.replica.survey import Survey
from pdp.facts.replica.view import View
from pdp.facts.store.changelog import Change, ChangeKind
from pdp.facts.store.state import renew_epoch
from pdp.facts.store.store import Reader, Store, Transaction

__all__ = [
    "Barriers",
    "Change",
    "ChangeKind",
    "Listener",
    "News",
    "Passed",
    "Reader",
    "Replica",
    "Step",
    "Store",
    "Survey",
    "Transaction",
    "View",
    "Watch",
    "migrate",
    "renew_epoch",
]
