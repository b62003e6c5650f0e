"""A store on either engine, and replicas of it."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from pdp.facts import Replica, Store
from pdp.facts.replica import leases
from tests.kit.waiting import eventually


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)


@pytest.fixture
def start(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Replica]]:
    started: list[Replica] = []

    def begin(poll_seconds: float = 0.02, staleness_seconds_max: float = 60.0) -> Replica:
        replica = Replica(
            store, poll_seconds=poll_seconds, staleness_seconds_max=staleness_seconds_max
        )
        replica.start()
        started.append(replica)
        eventually(replica.ready, what="ready")
        return replica

    yield begin
    # No lease depends on the watches that are left open.
    monkeypatch.setattr(leases, "LEASE_SECONDS_MAX", 0.0)
    for replica in started:
        replica.stop()
