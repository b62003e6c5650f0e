"""Room 3: SQL -> facts at one revision.

In:  a database (`pdp.database.engine.open_engine`), identifiers of actors and resources.
Out: entities (`Store`), and all facts that a decision needs (`Replica.view`), always exactly as
     they were at one revision.

Never: tokens, conditions, decisions. Facts are cached, decisions are not.

Invariants:
1. The first statement of every write raises the revision, a single row. Every write lists the keys
   that it touched in `changes`, and records old values, new values and the author in
   `administration_records`. The lock on the row makes the order of revisions the order of commits.
2. Facts of one view are read in one snapshot of the database.
3. A value that was read at revision n is not cached if a later revision was applied meanwhile
   (`snapshot.py` documents the caches: their keys, rules and invalidation).
4. A view is served only if its revision was confirmed as the newest within the staleness bound. A
   replica confirms nothing without a row in `replicas`, through which a barrier knows of it.
5. Identifiers are bound parameters and compare byte for byte, on both engines.
6. No text of a driver and no part of the database's URL leaves the room.
"""

from pdp.database.migrations import migrate
from pdp.facts.replica.barrier import BarrierResult, Barriers
from pdp.facts.replica.change_feed import ChangeBatch, ChangeSubscription, RevisionPart
from pdp.facts.replica.listener import Listener
from pdp.facts.replica.replica import Replica
from pdp.facts.replica.survey import Survey
from pdp.facts.replica.view import View
from pdp.facts.store.changelog import Change, ChangeKind
from pdp.facts.store.reader import Reader
from pdp.facts.store.shadow import FlipCount, FlipGroup, ShadowCounts, ShadowReport, ShadowStore
from pdp.facts.store.state import renew_epoch
from pdp.facts.store.store import Store
from pdp.facts.store.transaction import Transaction

__all__ = [
    "BarrierResult",
    "Barriers",
    "Change",
    "ChangeBatch",
    "ChangeKind",
    "ChangeSubscription",
    "FlipCount",
    "FlipGroup",
    "Listener",
    "Reader",
    "Replica",
    "RevisionPart",
    "ShadowCounts",
    "ShadowReport",
    "ShadowStore",
    "Store",
    "Survey",
    "Transaction",
    "View",
    "migrate",
    "renew_epoch",
]
