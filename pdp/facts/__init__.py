"""Room 3: SQL -> facts at one revision.

In:  a database (`pdp.sql.open_engine`), identifiers of actors and resources.
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

from pdp.facts.barrier import Barriers, Passed
from pdp.facts.changes import Change, ChangeKind
from pdp.facts.listener import Listener
from pdp.facts.replica import Replica
from pdp.facts.state import renew_epoch
from pdp.facts.store import Reader, Store, Transaction
from pdp.facts.survey import Survey
from pdp.facts.view import View
from pdp.facts.watching import News, Step, Watch
from pdp.migrations import migrate

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
