"""A process of the service, or of its clients, with a protection taken out or a clock put wrong.

    weaken(["edge lease"])    # in this process, before it is `pdp` or opens a guard

The words: what the checker must notice when it is gone,

    revision check        a value is stored whatever was applied since it was read
    lease                 a replica answers however long ago it was last confirmed as current
    in-order revisions    a sequence numbers revisions, so that commits overtake each other
    barrier               a barrier returns at once
    edge revision check   a guard caches answers from before the changes that it knows
    edge lease            a guard serves from its cache without a lease

and what it must not notice:

    delays                the pauses that the above need to be found soon
    clock=3               the wall clock, so many seconds ahead

There is no other way to switch any of this off: the product has no such option.
"""

import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tests.kit.stepped_clock import step_wall_clock

STORE_SECONDS_MAX = 0.1
COMMIT_SECONDS_MAX = 0.03
RACE_SECONDS_MAX = 0.3


def weaken(words: Sequence[str]) -> None:
    """Tampers with this process."""
    for word in words:
        if word.startswith("clock="):
            step_wall_clock(partial(float, word.removeprefix("clock=")))
        else:
            _WORDS[word]()


def _delay(store_seconds_max: float = STORE_SECONDS_MAX) -> None:
    """Between reading a value and storing it, and between writing and the commit."""
    from pdp_client.cache import DecisionCache

    from pdp.facts.replica.snapshot import SnapshotCell
    from pdp.facts.store.transaction import Transaction

    _pause_before(SnapshotCell, "fill", store_seconds_max)
    _pause_before(Transaction, "finish", COMMIT_SECONDS_MAX)
    _pause_before(DecisionCache, "keep", store_seconds_max)


def _without_revision_check() -> None:
    from pdp.facts.replica.snapshot import SnapshotCell

    fill = SnapshotCell.fill

    def fill_always(self: SnapshotCell, gathered: Any) -> None:
        fill(self, replace(gathered, revision=max(gathered.revision, self.current.revision)))

    SnapshotCell.fill = fill_always  # type: ignore[method-assign]
    _delay(RACE_SECONDS_MAX)


def _without_lease() -> None:
    from pdp.facts.replica.replica import Replica

    Replica.require_fresh = lambda *_: None  # type: ignore[method-assign]


def _without_order() -> None:
    from tests.history.sequences import number_by_sequence

    number_by_sequence()


def _without_barrier() -> None:
    from pdp.facts.replica.barrier import BarrierResult, Barriers

    def return_at_once(self: Any, revision: int) -> BarrierResult:
        _, revision, bounds = self._raise(revision)
        return BarrierResult(revision, len(bounds), 0)

    Barriers.wait = return_at_once  # type: ignore[method-assign]


def _without_edge_revision_check() -> None:
    from pdp_client.cache import DecisionCache

    keep = DecisionCache.keep

    def keep_always(self: Any, key: bytes, fresh: Any) -> None:
        keep(self, key, replace(fresh, revision=sys.maxsize))

    DecisionCache.keep = keep_always  # type: ignore[method-assign]
    _delay(RACE_SECONDS_MAX)


def _without_edge_lease() -> None:
    from pdp_client.cache import DecisionCache

    renew = DecisionCache.renew

    def renew_for_good(self: Any, revision: int, epoch: str, _: float) -> None:
        renew(self, revision, epoch, float("inf"))

    DecisionCache.renew = renew_for_good  # type: ignore[method-assign]


_WORDS: Mapping[str, Callable[[], None]] = {
    "delays": _delay,
    "revision check": _without_revision_check,
    "lease": _without_lease,
    "in-order revisions": _without_order,
    "barrier": _without_barrier,
    "edge revision check": _without_edge_revision_check,
    "edge lease": _without_edge_lease,
}


def _pause_before(owner: type, name: str, seconds_max: float) -> None:
    method = getattr(owner, name)

    def paused(*arguments: Any) -> Any:
        time.sleep(random.uniform(0, seconds_max))
        return method(*arguments)

    setattr(owner, name, paused)
