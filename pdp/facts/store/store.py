"""Reading and writing entities, each in one transaction at one revision."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby, islice
from typing import Any, TypeVar

import structlog
from sqlalchemy import (
    Connection,
    Engine,
    MappingResult,
    Select,
    Table,
    delete,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from pdp.database.engine import announce, begin_read, breaks_reference, connect_to_write
from pdp.errors import AlreadyExists, BrokenReference, DatabaseUnavailable, NotFound
from pdp.facts.store import tables
from pdp.facts.store.bulk import upsert
from pdp.facts.store.changelog import (
    CHANGES_PER_REVISION_MAX,
    CHANNEL,
    EVERYTHING,
    Change,
    ChangeKind,
    change_from_row,
    change_of,
)
from pdp.facts.store.rows import KINDS, check_row, check_text, key_text, to_row
from pdp.facts.store.state import read_state
from pdp.kinds import kind_of
from pdp.model import Entity, Grant, Key, RevokedSession, Role, key_of

log = structlog.get_logger(__name__)

E = TypeVar("E", bound=Entity)

BATCH_ROWS = 1_000


class Reader:
    """Everything as it is at `revision`. Lives as long as its transaction.

    Every method raises `DatabaseUnavailable`, and `InvalidRequest` for keys that cannot be stored.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.state = read_state(connection)
        self._revision = self.state.revision
        self.epoch = self.state.epoch

    @property
    def revision(self) -> int:
        """The number of the last change that this transaction sees."""
        return self._revision

    def get(self, kind: type[E], key: Key) -> E | None:
        """The entity with this key (see `model.key_of`), if there is one."""
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
        """Entities in the bytewise order of their keys, from the one behind `after` on."""
        stored = KINDS[kind]
        columns = stored.key
        query = select(stored.table).order_by(*columns).limit(limit)
        if after is not None:
            for column, part in zip(columns, after, strict=True):
                check_text(part, column.name)
            query = query.where(tuple_(*columns) > tuple_(*after))
        return self._entities(kind, [stored.from_row(row) for row in self._rows(query)])

    def get_many(self, kind: type[E], keys: Iterable[Key]) -> dict[Key, E]:
        """Those of the entities with these keys that there are."""
        stored = KINDS[kind]
        found: dict[Key, E] = {}
        iterator = iter(keys)
        while batch := list(islice(iterator, BATCH_ROWS)):
            query = select(stored.table).where(tuple_(*stored.key).in_(batch))
            entities = [stored.from_row(row) for row in self._rows(query.order_by(*stored.key))]
            found.update((key_of(entity), entity) for entity in self._entities(kind, entities))
        return found

    def is_revoked(self, user_id: str, session_id: str) -> bool:
        """Whether a session was revoked or has ended."""
        sessions = tables.revoked_sessions.c
        where = (sessions.user_id == user_id, sessions.session_id == session_id)
        return self.connection.execute(select(sessions.user_id).where(*where)).first() is not None

    def page_secret(self) -> bytes:
        """32 random bytes that only processes on this database know: they sign page tokens."""
        secret: bytes = self.connection.execute(select(tables.state.c.page_secret)).scalar_one()
        return secret

    def changes(self, after: int) -> Mapping[int, Sequence[Change]]:
        """What each revision later than `after` touched."""
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
        """Completes roles with what they inherit."""
        if kind is not Role or not found:
            return found
        edges = tables.role_inheritance
        query = select(edges.c.role, edges.c.inherits).order_by(edges.c.role, edges.c.inherits)
        query = query.where(edges.c.role >= found[0].name, edges.c.role <= found[-1].name)
        inherits: dict[str, list[str]] = {}
        for role, inherited in self.connection.execute(query):
            inherits.setdefault(role, []).append(inherited)
        return [replace(role, inherits=tuple(inherits.get(role.name, ()))) for role in found]


class Transaction(Reader):
    """A reader that also writes. Its first statement raises the revision: the row's lock puts
    writers in a line, so that the order of revisions is the order of commits.

    A block that touched nothing leaves the revision as it was. After an error the block must be
    left: nothing of it is kept.
    """

    def __init__(self, connection: Connection) -> None:
        state = tables.state
        connection.execute(update(state).values(revision=state.c.revision + 1))
        super().__init__(connection)
        self._changes: dict[Change, None] = {}
        self._kept = False
        self._abandoned = False
        self._failed = False

    @property
    def revision(self) -> int:
        """The one that will hold what was written so far; the one before while that is nothing."""
        return self._revision if self._changes else self._revision - 1

    @property
    def raises_revision(self) -> bool:
        """Whether something was touched that decisions read."""
        return bool(self._changes)

    def insert(self, entity: Entity) -> None:
        """Adds an entity.

        Raises:
            AlreadyExists: its key is taken.
            BrokenReference: a role that it names does not exist.
        """
        kind = KINDS[type(entity)]
        if not self.insert_new(kind.table, to_row(entity), _names_nothing(entity)):
            raise AlreadyExists(kind_of(entity), key_text(key_of(entity)))
        if isinstance(entity, Role):
            self._inherit([entity])
        self._touch(entity)

    def update(self, entity: Entity) -> None:
        """Replaces the entity that has this key.

        Raises:
            NotFound: there is none.
            BrokenReference: a role that it names does not exist.
        """
        kind = KINDS[type(entity)]
        key = key_of(entity)
        row = to_row(entity)
        before = self.get(type(entity), key)
        if before is None:
            raise NotFound(kind_of(entity), key_text(key))
        where = (column == part for column, part in zip(kind.key, key, strict=True))
        self._write(update(kind.table).where(*where).values(row), None, _names_nothing(entity))
        if isinstance(entity, Role):
            self._inherit([entity])
        self._touch(before)
        self._touch(entity)

    def delete(self, kind: type[Entity], key: Key) -> bool:
        """Removes the entity with this key; False where there is none.

        Raises:
            BrokenReference: it is a role that a rule, a grant or another role still names.
        """
        before = self.get(kind, key)
        if before is None:
            return False
        stored = KINDS[kind]
        where = (column == part for column, part in zip(stored.key, key, strict=True))
        name = key_text(key)
        broken = BrokenReference(
            f"the {kind_of(kind)} {name!r} is still named", kind_of(kind), name
        )
        self._write(delete(stored.table).where(*where), None, broken)
        self._touch(before)
        return True

    def delete_many(self, kind: type[E], keys: Iterable[Key]) -> Sequence[E]:
        """Removes in bulk, of a kind that nothing refers to, and returns those that there were."""
        found = self.get_many(kind, keys)
        stored = KINDS[kind]
        remaining = iter(found)
        while batch := list(islice(remaining, BATCH_ROWS)):
            self._write(delete(stored.table).where(tuple_(*stored.key).in_(batch)), None)
        for entity in found.values():
            self._touch(entity)
        return list(found.values())

    def revoke_session(self, revoked: RevokedSession) -> bool:
        """Ends a session; False where it had ended before, and nothing is touched."""
        row = {
            "user_id": revoked.user_id,
            "session_id": revoked.session_id,
            "revoked_at": revoked.revoked_at,
        }
        if not self.insert_new(tables.revoked_sessions, row):
            return False
        self.note(Change(ChangeKind.USER, (revoked.user_id,)))
        return True

    def note(self, change: Change) -> None:
        """Something that decisions read was touched: the revision rises."""
        if EVERYTHING not in self._changes:
            self._changes[change] = None
            if len(self._changes) > CHANGES_PER_REVISION_MAX:
                self._changes = {EVERYTHING: None}

    def keep(self) -> None:
        """Something was written that no decision reads: it is committed, and alone raises no
        revision."""
        self._kept = True

    def abandon(self) -> None:
        """Nothing of this transaction is to be kept: it only tried what would happen."""
        self._abandoned = True

    def insert_new(
        self, table: Table, row: Mapping[str, Any], broken: BrokenReference | None = None
    ) -> bool:
        """Inserts a row; False where its key is taken (and the transaction goes on)."""
        check_row(table, row)
        inserting = self._insert_or(table).on_conflict_do_nothing()
        counted = inserting.execution_options(preserve_rowcount=True)
        return bool(self._write(counted, row, broken).rowcount)

    def apply_many(self, entities: Iterable[Entity]) -> int:
        """Adds or replaces entities in bulk and returns how many. Roles that inherit from one
        another must stand side by side; a role stands before what names it.

        Raises:
            BrokenReference: a role that one of them names does not exist.
        """
        count = 0
        for kind, group in groupby(entities, key=type):
            inheriting: list[Role] = []
            while batch := list(islice(group, BATCH_ROWS)):
                count += len(batch)
                self._replace_batch(kind, batch)
                inheriting += (entity for entity in batch if isinstance(entity, Role))
            if inheriting:
                self._inherit(inheriting)
        return count

    def _replace_batch(self, kind: type[Entity], batch: Sequence[Entity]) -> None:
        table = KINDS[kind].table
        if kind is Grant and EVERYTHING not in self._changes:
            # Whom a grant is taken from is touched too.
            ids = [key_of(grant)[0] for grant in batch]
            replaced = select(table).where(table.c.id.in_(ids))
            for row in self._rows(replaced):
                self._touch(KINDS[kind].from_row(row))
        rows = [to_row(entity) for entity in batch]
        statement, parameters = upsert(self.connection.dialect.name, table, rows)
        self._write(statement, parameters, _names_nothing(batch[0]))
        for entity in batch:
            self._touch(entity)

    def _inherit(self, roles: Sequence[Role]) -> None:
        edges = tables.role_inheritance
        for role in roles:
            self.connection.execute(delete(edges).where(edges.c.role == role.name))
        rows = [{"role": r.name, "inherits": i} for r in roles for i in sorted(set(r.inherits))]
        for row in rows:
            check_row(edges, row)
        if rows:
            self._write(insert(edges), rows, _names_nothing(roles[0]))

    def _insert_or(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        if self.connection.dialect.name == "postgresql":
            return postgresql.insert(table)
        return sqlite.insert(table)

    def _write(self, statement: Any, rows: Any, broken: BrokenReference | None = None) -> Any:
        """Executes; raises `broken` where a foreign key refuses."""
        try:
            return self.connection.execute(statement, rows)
        except SQLAlchemyError as error:
            self._failed = True
            if broken is not None and breaks_reference(error):
                raise broken from None
            raise

    def _touch(self, entity: Entity) -> None:
        self.note(change_of(entity))

    def finish(self) -> bool:
        """Writes what was touched; False where nothing is to be committed."""
        if self._failed:
            raise RuntimeError("a transaction went on after an error")
        if self._abandoned:
            return False
        rows = [
            {"revision": self._revision, "position": n, "kind": c.kind.value, "key": c.key_json}
            for n, c in enumerate(self._changes)
        ]
        if rows:
            self.connection.execute(insert(tables.changes), rows)
        elif self._kept:
            # The row is still locked: nobody has seen the revision that is taken back.
            self.connection.execute(update(tables.state).values(revision=self._revision - 1))
        return bool(rows) or self._kept


def _names_nothing(entity: Entity) -> BrokenReference:
    kind, key = kind_of(entity), key_text(key_of(entity))
    return BrokenReference(f"the {kind} {key!r} names a role that does not exist", kind, key)


class Store:
    """The database of policy and facts."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._announcing_fails = False

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """A transaction that sees one revision.

        Raises:
            DatabaseUnavailable: the database cannot be reached or does not answer in time.
        """
        with begin_read(self.engine) as connection:
            yield Reader(connection)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that writes, one at a time; commits when the block ends without an error.

        Raises:
            DatabaseUnavailable: the database cannot be reached, is busy, or does not answer in
                time. The write may nevertheless have been committed.
        """
        with connect_to_write(self.engine) as connection:
            with connection.begin():
                transaction = Transaction(connection)
                yield transaction
                committing = transaction.finish()
                if not committing:
                    connection.rollback()
            if committing and transaction.raises_revision:
                self._announce(connection)

    def _announce(self, connection: Connection) -> None:
        """Wakes the replicas. What fails here is no failure of the write: polling finds it too."""
        try:
            announce(connection, CHANNEL)
        except DatabaseUnavailable as error:
            if not self._announcing_fails:
                log.warning("changes_not_announced", error=error.message)
            self._announcing_fails = True
        else:
            if self._announcing_fails:
                log.info("changes_announced_again")
            self._announcing_fails = False
