"""Queries and Check side by side in one process, on a real database."""

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy import Engine, delete, insert

from pdp.access_queries import AccessQueries
from pdp.audit import DecisionRecord, Recorder
from pdp.authorizer import Authorizer
from pdp.database.bulk import insert_rows
from pdp.facts import Replica, Store
from pdp.facts.store import tables
from pdp.facts.store.changelog import EVERYTHING
from pdp.facts.store.rows import KINDS, to_row
from pdp.model import Effect, Entity, Question, Resource, Role
from pdp.recording import Recording
from tests.kit.audit.logs import records_of
from tests.kit.identity.verifiers import make_verifier
from tests.kit.tokens import session_token
from tests.kit.waiting import eventually, run

CALLER = "backend"
TOKEN_SECONDS = 20
"""Less than a session token lives."""
POLL_SECONDS = 1.0
"""Each write pokes the replica, so it polls for nothing else."""
_STORED = (
    *(tables.grants, tables.rules, tables.role_inheritance, tables.roles, tables.permissions),
    *(tables.resource_types, tables.resources, tables.memberships, tables.users),
    *(tables.organizations, tables.revoked_sessions),
)


@dataclass
class QueryService:
    """An authorizer and the queries on one replica."""

    store: Store
    replica: Replica
    recorder: Recorder
    authorizer: Authorizer
    queries: AccessQueries
    too_expensive: list[str]
    """Ids of rules that a query could not afford."""

    def write(self, *entities: Entity) -> int:
        """Stores entities; returns once they are served."""
        with self.store.write() as transaction:
            transaction.apply_many(entities)
        self.follow(transaction.revision)
        return transaction.revision

    def replace_all(self, entities: Sequence[Entity]) -> None:
        """Stores these entities and nothing else; returns once they are served.

        They are grouped by kind, each key occurs once, and the administration log has no record.
        """
        dialect = self.store.engine.dialect.name
        inherited = [
            {"role": one.name, "inherits": name}
            for one in entities
            if isinstance(one, Role)
            for name in one.inherits
        ]
        with self.store.write() as transaction:
            connection = transaction.connection
            for table in _STORED:
                connection.execute(delete(table))
            for kind, group in groupby(entities, key=type):
                rows = [to_row(one) for one in group]
                connection.execute(*insert_rows(dialect, KINDS[kind].table, rows))
            if inherited:
                connection.execute(insert(tables.role_inheritance), inherited)
            transaction.touch(EVERYTHING, "session", (), None, None)
        self.follow(transaction.revision)

    def delete(self, kind: type[Entity], *key: str) -> None:
        """Removes an entity; returns once that is served."""
        with self.store.write() as transaction:
            assert transaction.delete(kind, key)
        self.follow(transaction.revision)

    def follow(self, revision: int) -> None:
        self.replica.poke()
        eventually(lambda: self.replica.revision >= revision, what="the write is served")

    def allowed(self, token: str, permission: str, resources: Sequence[Resource]) -> list[Resource]:
        """Those on which Check allows it."""
        questions = [Question(permission, resource) for resource in resources]
        if not questions:
            return []
        decisions = run(self.authorizer.rule(token, questions, CALLER)).decisions
        return [
            resource
            for resource, decision in zip(resources, decisions, strict=True)
            if decision.effect is Effect.ALLOW
        ]

    def records(self) -> list[DecisionRecord]:
        return records_of(self.recorder.directory)


def token_of(user: str = "user_1", organization: str | None = None, **more: Any) -> str:
    return session_token(now=time.time(), user_id=user, organization_id=organization, **more)


def token_without_claims(user: str, organization: str | None) -> str:
    """The same for a user and an organization alone, signed once in TOKEN_SECONDS."""
    return _token_of(user, organization, int(time.monotonic() // TOKEN_SECONDS))


@functools.lru_cache(maxsize=100)
def _token_of(user: str, organization: str | None, _period: int) -> str:
    return token_of(user, organization)


@contextmanager
def query_service(engine: Engine, directory: Path) -> Iterator[QueryService]:
    """A service. A record may wait long for a busy disk: that is not what its tests are about."""
    store = Store(engine)
    replica = Replica(store, staleness_seconds_max=60, poll_seconds=POLL_SECONDS)
    recorder = Recorder(directory, "one")
    recorder.start()
    replica.start()
    verifying = make_verifier(clock=time.time)
    authorizer = Authorizer(verifying, replica, Recording(recorder), clock=time.time)
    too_expensive: list[str] = []
    queries = AccessQueries(
        authorizer,
        verifying,
        replica,
        recorder,
        clock=time.time,
        note_too_expensive=too_expensive.append,
    )
    try:
        eventually(replica.ready)
        with patch("pdp.audit.recorder.WAIT_SECONDS_MAX", 30):
            yield QueryService(store, replica, recorder, authorizer, queries, too_expensive)
    finally:
        recorder.stop()
        replica.stop()
