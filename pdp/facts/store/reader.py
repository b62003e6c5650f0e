"""Reads entities, in a transaction at one revision."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import Connection, MappingResult, Select, select, tuple_

from pdp.database.bulk import batches
from pdp.facts.store import tables
from pdp.facts.store.changelog import Change, change_from_row
from pdp.facts.store.rows import KINDS, check_text
from pdp.facts.store.state import read_state
from pdp.model import Entity, Key, Role, key_of

E = TypeVar("E", bound=Entity)


class Reader:
    """Reads the database at one revision, while its transaction lives.

    Every method raises `DatabaseUnavailable`, and `InvalidRequest` for keys that cannot be stored.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.state = read_state(connection)
        self._revision = self.state.revision
        self.epoch = self.state.epoch

    @property
    def revision(self) -> int:
        """The latest revision that this transaction sees."""
        return self._revision

    def get(self, kind: type[E], key: Key) -> E | None:
        """Returns the entity with this key (see `model.key_of`); None: there is none."""
        stored = KINDS[kind]
        columns = stored.key
        for column, part in zip(columns, key, strict=True):
            check_text(part, column.name)
        where = (column == part for column, part in zip(columns, key, strict=True))
        row = self._rows(select(stored.table).where(*where)).one_or_none()
        return None if row is None else self._entities(kind, [stored.from_row(row)])[0]

    def list(
        self, kind: type[E], after: Key | None = None, limit: int | None = None
    ) -> Sequence[E]:
        """Returns up to `limit` entities in the bytewise order of their keys, after `after`."""
        stored = KINDS[kind]
        columns = stored.key
        query = select(stored.table).order_by(*columns).limit(limit)
        if after is not None:
            for column, part in zip(columns, after, strict=True):
                check_text(part, column.name)
            query = query.where(tuple_(*columns) > tuple_(*after))
        return self._entities(kind, [stored.from_row(row) for row in self._rows(query)])

    def get_many(self, kind: type[E], keys: Iterable[Key]) -> dict[Key, E]:
        """Returns the entities with these keys, by key, without those that do not exist."""
        stored = KINDS[kind]
        found: dict[Key, E] = {}
        for batch in batches(keys):
            query = select(stored.table).where(tuple_(*stored.key).in_(batch))
            entities = [stored.from_row(row) for row in self._rows(query.order_by(*stored.key))]
            found.update((key_of(entity), entity) for entity in self._entities(kind, entities))
        return found

    def is_revoked(self, user_id: str, session_id: str) -> bool:
        """Returns whether a session was revoked or has ended."""
        sessions = tables.revoked_sessions.c
        where = (sessions.user_id == user_id, sessions.session_id == session_id)
        return self.connection.execute(select(sessions.user_id).where(*where)).first() is not None

    def page_secret(self) -> bytes:
        """Returns the 32 random bytes that sign page tokens. Only the database holds them."""
        secret: bytes = self.connection.execute(select(tables.state.c.page_secret)).scalar_one()
        return secret

    def changes(self, after: int) -> Mapping[int, Sequence[Change]]:
        """Returns the changes of each revision later than `after`."""
        log = tables.changes
        query = (
            select(log.c.revision, log.c.kind, log.c.key)
            .where(log.c.revision > after)
            .order_by(log.c.revision, log.c.position)
        )
        found: dict[int, list[Change]] = {}
        for revision, kind, key in self.connection.execute(query):
            found.setdefault(revision, []).append(change_from_row(kind, key))
        return found

    def _rows(self, query: Select[Any]) -> MappingResult:
        return self.connection.execute(query).mappings()

    def _entities(self, kind: type[E], found: Sequence[Any]) -> Sequence[E]:
        """Adds the inherited roles to roles."""
        if kind is not Role or not found:
            return found
        edges = tables.role_inheritance
        query = select(edges.c.role, edges.c.inherits).order_by(edges.c.role, edges.c.inherits)
        query = query.where(edges.c.role >= found[0].name, edges.c.role <= found[-1].name)
        inherits: dict[str, list[str]] = {}
        for role, inherited in self.connection.execute(query):
            inherits.setdefault(role, []).append(inherited)
        return [replace(role, inherits=tuple(inherits.get(role.name, ()))) for role in found]
