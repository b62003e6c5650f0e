"""Writes entities, in a transaction that raises the revision."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, delete, insert, tuple_, update
from sqlalchemy.exc import SQLAlchemyError

from pdp.administration_records import UNNAMED, Author, Values
from pdp.database.bulk import batches, insert_into, upsert
from pdp.database.engine import breaks_reference
from pdp.errors import AlreadyExists, BrokenReference, NotFound
from pdp.facts.store import tables
from pdp.facts.store.changelog import (
    CHANGES_PER_REVISION_MAX,
    EVERYTHING,
    Change,
    ChangeKind,
    change_of,
)
from pdp.facts.store.reader import Reader
from pdp.facts.store.recording import Recorded, Touched, same_row, write_records
from pdp.facts.store.rows import KINDS, check_row, key_text, to_row
from pdp.kinds import kind_of
from pdp.model import Entity, Key, RevokedSession, Role, key_of

E = TypeVar("E", bound=Entity)


class Transaction(Reader):
    """A reader that also writes.

    The first statement raises the revision. The lock on that row serializes writers, so that the
    order of revisions is the order of commits. A transaction without changes leaves the revision
    unchanged. After an error the block must end; nothing of it is committed.

    Each entity that it changes gets one administration record in the same transaction.
    """

    def __init__(self, connection: Connection, author: Author = UNNAMED) -> None:
        state = tables.state
        connection.execute(update(state).values(revision=state.c.revision + 1))
        super().__init__(connection)
        self._begin(author)

    def _begin(self, author: Author) -> None:
        self._author = author
        self._changes: dict[Change, None] = {}
        self._touched: dict[tuple[str, Key], Touched] = {}
        self._written = False
        self._discarded = False
        self._failed = False

    @property
    def revision(self) -> int:
        """The revision of the changes so far; without changes, the current revision."""
        return self._revision if self._changes else self._revision - 1

    @property
    def raises_revision(self) -> bool:
        """Whether the transaction changes something that decisions read."""
        return bool(self._changes)

    def insert(self, entity: Entity) -> None:
        """Adds an entity.

        Raises:
            AlreadyExists: Its key is taken.
            BrokenReference: It names a role that does not exist.
        """
        kind = KINDS[type(entity)]
        if not self.insert_new(kind.table, to_row(entity), _missing_role(entity)):
            raise AlreadyExists(kind_of(entity), key_text(key_of(entity)))
        if isinstance(entity, Role):
            self._inherit([entity])
        self._touch(None, entity)

    def update(self, entity: Entity) -> None:
        """Replaces the entity with the same key.

        Raises:
            NotFound: There is none.
            BrokenReference: It names a role that does not exist.
        """
        kind = KINDS[type(entity)]
        key = key_of(entity)
        row = to_row(entity)
        before = self.get(type(entity), key)
        if before is None:
            raise NotFound(kind_of(entity), key_text(key))
        where = (column == part for column, part in zip(kind.key, key, strict=True))
        self._write(update(kind.table).where(*where).values(row), None, _missing_role(entity))
        if isinstance(entity, Role):
            self._inherit([entity])
        self._touch(before, entity)

    def delete(self, kind: type[Entity], key: Key) -> bool:
        """Deletes the entity with this key; False: there is none.

        Raises:
            BrokenReference: It is a role that a rule, a grant or another role still names.
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
        self._touch(before, None)
        return True

    def delete_many(self, kind: type[E], keys: Iterable[Key]) -> Sequence[E]:
        """Deletes entities of a kind that nothing refers to; returns those that existed."""
        found = self.get_many(kind, keys)
        stored = KINDS[kind]
        for batch in batches(found):
            self._write(delete(stored.table).where(tuple_(*stored.key).in_(batch)), None)
        for entity in found.values():
            self._touch(entity, None)
        return list(found.values())

    def revoke_session(self, revoked: RevokedSession) -> bool:
        """Revokes a session; False: it was revoked or had ended before, and nothing changes."""
        row = {
            "user_id": revoked.user_id,
            "session_id": revoked.session_id,
            "revoked_at": revoked.revoked_at,
        }
        if not self.insert_new(tables.revoked_sessions, row):
            return False
        key = (revoked.user_id, revoked.session_id)
        revocation = {name: value for name, value in row.items() if value is not None}
        self.touch(Change(ChangeKind.USER, (revoked.user_id,)), "session", key, None, revocation)
        return True

    def touch(self, change: Change, kind: str, key: Key, before: Recorded, after: Recorded) -> None:
        """Records a change of something that decisions read, which raises the revision.

        Args:
            change: What replicas must drop.
            kind: The kind of what changed, for its administration record.
            key: Its key.
            before: What was stored; None: nothing.
            after: What is stored now; None: nothing.
        """
        self._add_change(change)
        first = self._touched.get((kind, key))
        self._touched[kind, key] = Touched(before if first is None else first.before, after)

    def record_event(
        self, kind: str, key: Key, before: Values | None, after: Values | None
    ) -> None:
        """Records something that no decision reads, e.g. a legal hold.

        It raises the revision, because each administration record has one.
        """
        # There is no such user: replicas drop nothing.
        self.touch(Change(ChangeKind.USER, ("",)), kind, key, before, after)

    def _add_change(self, change: Change) -> None:
        if EVERYTHING not in self._changes:
            self._changes[change] = None
            if len(self._changes) > CHANGES_PER_REVISION_MAX:
                self._changes = {EVERYTHING: None}

    def mark_written(self) -> None:
        """Records a write of something that no decision reads: it is committed, but does not raise
        the revision."""
        self._written = True

    def discard(self) -> None:
        """Rolls the transaction back at its end: it was a dry run."""
        self._discarded = True

    def insert_new(
        self, table: Table, row: Mapping[str, Any], broken: BrokenReference | None = None
    ) -> bool:
        """Inserts a row; False: its key is taken (the transaction can continue)."""
        check_row(table, row)
        inserting = insert_into(self.connection, table).on_conflict_do_nothing()
        counted = inserting.execution_options(preserve_rowcount=True)
        return bool(self._write(counted, row, broken).rowcount)

    def apply_many(self, entities: Iterable[Entity]) -> int:
        """Inserts or replaces entities in bulk.

        Args:
            entities: Grouped by kind. Roles come before the entities that name them.

        Returns:
            The number of entities.

        Raises:
            BrokenReference: An entity names a role that does not exist.
        """
        count = 0
        for kind, group in groupby(entities, key=type):
            inheriting: list[Role] = []
            for batch in batches(group):
                count += len(batch)
                self._replace_batch(kind, batch)
                inheriting += (entity for entity in batch if isinstance(entity, Role))
            if inheriting:
                self._inherit(inheriting)
        return count

    def _replace_batch(self, kind: type[Entity], batch: Sequence[Entity]) -> None:
        table = KINDS[kind].table
        rows = [to_row(entity) for entity in batch]
        replaced = self.get_many(kind, [key_of(entity) for entity in batch])
        statement, parameters = upsert(self.connection.dialect.name, table, rows)
        self._write(statement, parameters, _missing_role(batch[0]))
        for entity in batch:
            self._touch(replaced.get(key_of(entity)), entity)

    def _inherit(self, roles: Sequence[Role]) -> None:
        edges = tables.role_inheritance
        for role in roles:
            self.connection.execute(delete(edges).where(edges.c.role == role.name))
        rows = [{"role": r.name, "inherits": i} for r in roles for i in sorted(set(r.inherits))]
        for row in rows:
            check_row(edges, row)
        if rows:
            self._write(insert(edges), rows, _missing_role(roles[0]))

    def _write(self, statement: Any, rows: Any, broken: BrokenReference | None = None) -> Any:
        """Executes a statement; raises `broken` if a foreign key refuses it."""
        try:
            return self.connection.execute(statement, rows)
        except SQLAlchemyError as error:
            self._failed = True
            if broken is not None and breaks_reference(error):
                raise broken from None
            raise

    def _touch(self, before: Entity | None, after: Entity | None) -> None:
        entity = before if after is None else after
        if entity is None or (before is not None and after is not None and same_row(before, after)):
            return
        if before is not None:
            self._add_change(change_of(before))
        self.touch(change_of(entity), kind_of(entity), key_of(entity), before, after)

    def finish(self) -> bool:
        """Writes the changes; returns whether to commit."""
        if self._failed:
            raise RuntimeError("a transaction went on after an error")
        if self._discarded:
            return False
        rows = [
            {"revision": self._revision, "position": n, "kind": c.kind.value, "key": c.key_json}
            for n, c in enumerate(self._changes)
        ]
        if rows:
            self.connection.execute(insert(tables.changes), rows)
            touched = ((kind, key, states) for (kind, key), states in self._touched.items())
            write_records(self.connection, touched, self._author, self.epoch, self._revision)
        elif self._written:
            # The row is still locked: no other transaction has seen the revision.
            self.connection.execute(update(tables.state).values(revision=self._revision - 1))
        return bool(rows) or self._written


def _missing_role(entity: Entity) -> BrokenReference:
    kind, key = kind_of(entity), key_text(key_of(entity))
    return BrokenReference(f"the {kind} {key!r} names a role that does not exist", kind, key)
