"""A store on either engine, and replicas of it."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from pdp.facts import Replica, Store
from tests.kit.waiting import eventually


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)


@pytest.fixture
def start(store: Store) -> Iterator[Callable[..., Replica]]:
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
    for replica in started:
        replica.stop()
