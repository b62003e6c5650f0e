"""Writes entities and policy documents; `integrity` checks references."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeVar

from pdp import names
from pdp.administration_records import UNNAMED, Author
from pdp.administrator.integrity import check_expected, check_references, dependents
from pdp.document import (
    VERSION_LINE,
    Action,
    Change,
    PolicyDocument,
    checked,
    derived_grant_id,
    derived_rule_id,
    differences,
    display_key,
    lint_applied,
    parse_document,
    reference_violations,
    refuse,
    render_more,
    render_sections,
    same_entity,
)
from pdp.errors import InvalidRequest, LimitExceeded, NotFound, Violation
from pdp.facts import Reader, Store, Transaction
from pdp.facts.store.references import find_referrers, grants_on_resources
from pdp.kinds import KINDS, SECTIONS, kind_of
from pdp.limits import DOCUMENT_BYTES_MAX
from pdp.model import Entity, Grant, Key, RevokedSession, Role, Rule, key_of

E = TypeVar("E", bound=Entity)

_PAGE_ITEMS = 2_000
_WHOLE_SECTIONS = {
    "permissions": ("permission",),
    "resource_types": ("resource_type",),
    "roles": ("role", "rule"),
    "routes": ("route",),
}
"""Sections that are rendered as a whole, with their kinds. The others are lists of one kind, which
are read and rendered in pages."""


class Administrator:
    """Writes policy, entities and revoked sessions. Every method may raise DatabaseUnavailable.

    `author` is who writes, and why, for the administration records. A write raises InvalidRequest
    for a reason that is too long or is not one line of text.
    """

    def __init__(self, store: Store, on_write: Callable[[int], None]) -> None:
        """Writes to `store`.

        Args:
            store: The database.
            on_write: Called with the revision of every change, after the commit.
        """
        self._store = store
        self._on_write = on_write

    def create(self, entity: E, author: Author = UNNAMED) -> tuple[E, int]:
        """Adds an entity; a rule or grant without an id gets one that is derived from its content.

        Returns:
            The entity as stored, and its revision.

        Raises:
            InvalidRequest: The entity is not valid.
            AlreadyExists: Its key is taken.
            BrokenReference: It names a role, permission or parent that does not exist.
            RouteConflict: It is a route that conflicts with another one.
            LimitExceeded: There are ROUTES_MAX routes.
        """
        entity = _validated(entity)
        with self._store.write(_checked(author)) as transaction:
            entity = _with_id(transaction, entity)
            check_references(transaction, entity)
            transaction.insert(entity)
            revision = transaction.revision
        self._on_write(revision)
        return entity, revision

    def get(self, kind: type[E], key: Key) -> E:
        """Returns the entity with this key. Raises NotFound."""
        with self._store.read() as reader:
            return _existing(reader, kind, key)

    def list(
        self, kind: type[E], after: Key | None = None, limit: int | None = None
    ) -> Sequence[E]:
        """Returns up to `limit` entities in the bytewise order of their keys, after `after`."""
        with self._store.read() as reader:
            return reader.list(kind, after, limit)

    def grants_of(self, role: str, limit: int) -> Sequence[Grant]:
        """Returns up to `limit` grants of a role, ordered by id."""
        with self._store.read() as reader:
            return find_referrers(reader, Grant, limit=limit, role=role)

    def update(self, entity: E, author: Author = UNNAMED) -> tuple[E, int]:
        """Replaces the entity with the same key.

        Returns:
            The entity as stored, and its revision: the current one if nothing changed.

        Raises:
            InvalidRequest: The entity is not valid.
            NotFound: No entity has this key.
            BrokenReference: It names a role, permission or parent that does not exist.
            RouteConflict: It is a route that conflicts with another one.
        """
        entity = _validated(entity)
        with self._store.write(_checked(author)) as transaction:
            before = _existing(transaction, type(entity), key_of(entity))
            changed = not same_entity(before, entity)
            if changed:
                check_references(transaction, entity)
                transaction.update(entity)
            revision = transaction.revision
        if changed:
            self._on_write(revision)
        return entity, revision

    def delete(self, kind: type[Entity], key: Key, author: Author = UNNAMED) -> int:
        """Deletes an entity and its dependents: a role's rules; a user's memberships and grants; an
        organization's memberships and the grants within it; the grants on a resource.

        A user's revoked sessions stay revoked: the user may be created again while one of their
        tokens is still valid.

        Returns:
            The revision of the deletion.

        Raises:
            NotFound: No entity has this key.
            BrokenReference: Another entity still refers to it.
        """
        with self._store.write(_checked(author)) as transaction:
            _existing(transaction, kind, key)
            for dependent in dependents(transaction, kind, key):
                transaction.delete(type(dependent), key_of(dependent))
            transaction.delete(kind, key)
            revision = transaction.revision
        self._on_write(revision)
        return revision

    def revoke_session(self, session_id: str, user_id: str, author: Author = UNNAMED) -> int:
        """Revokes a session permanently, although it may stay active at Clerk. Idempotent.

        Returns:
            The revision from which on the session is refused.

        Raises:
            InvalidRequest: An identifier is not valid.
        """
        checks = (
            names.check_identifier(session_id, "session_id"),
            names.check_identifier(user_id, "user_id"),
        )
        violations = [violation for violation in checks if violation is not None]
        if violations:
            raise InvalidRequest(*violations)
        with self._store.write(_checked(author)) as transaction:
            before = transaction.revision
            transaction.revoke_session(RevokedSession(session_id, user_id))
            revision = transaction.revision
        if revision != before:
            self._on_write(revision)
        return revision

    def apply(
        self,
        document: str | PolicyDocument,
        dry_run: bool = False,
        expected_revision: int = 0,
        author: Author = UNNAMED,
    ) -> tuple[int, Sequence[Change]]:
        """Makes the database equal to a policy document, atomically, for the sections in it.

        Args:
            document: The document, as text or parsed.
            dry_run: Only returns what would change.
            expected_revision: Fails if an entity of these sections was written after this
                revision; 0: no such check.
            author: As for the other writes.

        Returns:
            The revision, which is the current one if nothing changed, and the changes.

        Raises:
            InvalidPolicy: The document, or the policy that would result, is not valid.
            LimitExceeded: The document is too large.
            RevisionChanged: See `expected_revision`.
        """
        wanted = parse_document(document) if isinstance(document, str) else document
        if dry_run:
            with self._store.read() as reader:
                check_expected(reader, wanted, expected_revision)
                return reader.revision, _validated_changes(reader, wanted)[1]
        with self._store.write(_checked(author)) as transaction:
            check_expected(transaction, wanted, expected_revision)
            stored, changes = _validated_changes(transaction, wanted)
            _write(transaction, wanted, stored, changes)
            revision = transaction.revision
        if changes:
            self._on_write(revision)
        return revision, changes

    def lint(self, document: PolicyDocument) -> Sequence[Violation]:
        """Returns warnings about the policy that would result from a document: it is valid, but
        likely to surprise."""
        kinds = ("permission", "resource_type", "role", "rule", "route")
        with self._store.read() as reader:
            sections = {f"{kind}s": tuple(reader.list(KINDS[kind])) for kind in kinds}
            grants = grants_on_resources(reader)
        stored = PolicyDocument(**sections, grants=grants)  # type: ignore[arg-type]
        return lint_applied(document.over(stored))

    @staticmethod
    def check_sections(sections: Sequence[str]) -> Sequence[str]:
        """Returns the sections to export; empty: all. Raises InvalidRequest if one is unknown."""
        for name in sections:
            if name not in SECTIONS:
                known = ", ".join(SECTIONS)
                raise InvalidRequest(Violation("sections", f"{name!r} is not one of {known}"))
        return sections or SECTIONS

    def export(self, sections: Sequence[str] = SECTIONS) -> tuple[str, int]:
        """Exports the database as a policy document.

        Holds the text and one page of entities in memory, never all entities.

        Args:
            sections: Some of `kinds.SECTIONS`. To apply the document does not change the others.

        Returns:
            The text, and the revision that was read.

        Raises:
            LimitExceeded: The document would be larger than `apply` accepts.
        """
        parts = [VERSION_LINE]
        size = 0
        with self._store.read() as reader:
            for name in SECTIONS:
                for part in _render_section(reader, name) if name in sections else ():
                    parts.append(part)
                    size += len(part.encode())
                    if size > DOCUMENT_BYTES_MAX:
                        raise LimitExceeded("document_bytes_max", DOCUMENT_BYTES_MAX, size)
            revision = reader.revision
        return "".join(parts), revision


# --- one entity ---------------------------------------------------------------------------------


def _validated(entity: E) -> E:
    """Returns the entity as stored; an id to be derived stays empty. Raises InvalidRequest."""
    derived = isinstance(entity, Rule | Grant) and not entity.id
    stored, problems = checked(entity)
    violations = [
        Violation(f"{kind_of(entity)}.{'.'.join(map(str, path))}", description)
        for path, description in problems
        if not (derived and path == ("id",))
    ]
    if violations:
        raise InvalidRequest(*violations)
    return stored


def _checked(author: Author) -> Author:
    """Returns the author. Raises InvalidRequest for the reason."""
    violation = names.check_reason(author.reason, "reason")
    if violation is not None:
        raise InvalidRequest(violation)
    return author


def _existing(reader: Reader, kind: type[E], key: Key) -> E:
    entity = reader.get(kind, key)
    if entity is None:
        raise NotFound(kind_of(kind), display_key(key))
    return entity


def _with_id(reader: Reader, entity: E) -> E:
    """Adds a derived id. Equal content gives an equal id, which `insert` then refuses."""
    match entity:
        case Grant(id=""):
            return dataclasses.replace(entity, id=derived_grant_id(entity))
        case Rule(id=""):
            base = derived_rule_id(entity)
            named = dataclasses.replace(entity, id=base)
            number = 1
            while (other := reader.get(Rule, (named.id,))) is not None:
                if dataclasses.replace(other, description="") == dataclasses.replace(
                    named, description=""
                ):
                    break
                number += 1
                named = dataclasses.replace(entity, id=f"{base}.{number}")
            return named
    return entity


# --- documents ----------------------------------------------------------------------------------


def _validated_changes(
    reader: Reader, wanted: PolicyDocument
) -> tuple[PolicyDocument, Sequence[Change]]:
    """Returns the stored entities of the sections concerned, and the changes. Raises InvalidPolicy
    if the resulting policy would not be valid."""
    stored = _stored(reader, wanted)
    changes = differences(stored, wanted)
    violations = reference_violations(wanted.over(stored))
    if wanted.grants is None:
        for change in changes:
            if change.kind == "role" and change.action is Action.DELETE:
                violations += _violations_of_grants(reader, change.key[0])
    refuse(violations)
    return stored, changes


def _stored(reader: Reader, wanted: PolicyDocument) -> PolicyDocument:
    kinds = {kind for kind in KINDS if wanted.section(kind) is not None}
    if kinds & {"permission", "role"}:
        kinds |= {"permission", "role", "rule"}
    if kinds & {"permission", "route"}:
        kinds |= {"permission", "route"}
    if "grant" in kinds:
        kinds.add("role")
    sections = {f"{kind}s": tuple(reader.list(KINDS[kind])) for kind in kinds}
    return PolicyDocument(**sections)  # type: ignore[arg-type]


def _violations_of_grants(reader: Reader, role: str) -> Sequence[Violation]:
    return [
        Violation("roles", f"leaves out {role!r}, which the stored grant {grant.id!r} names")
        for grant in find_referrers(reader, Grant, limit=1, role=role)
    ]


def _write(
    transaction: Transaction,
    wanted: PolicyDocument,
    stored: PolicyDocument,
    changes: Sequence[Change],
) -> None:
    deleted = {(change.kind, change.key) for change in changes if change.action is Action.DELETE}
    written = {(change.kind, change.key) for change in changes} - deleted
    transaction.apply_many(
        entity
        for kind in KINDS
        for entity in wanted.section(kind) or ()
        if (kind, key_of(entity)) in written
    )
    # first without `inherits`, so that roles can be deleted in any order
    transaction.apply_many(
        dataclasses.replace(role, inherits=())
        for role in stored.roles or ()
        if role.inherits and ("role", (role.name,)) in deleted
    )
    for kind, deletions in groupby(
        (change for change in changes if change.action is Action.DELETE),
        key=lambda change: change.kind,
    ):
        keys = [change.key for change in deletions]
        if kind != "role":
            transaction.delete_many(KINDS[kind], keys)
            continue
        for key in keys:
            transaction.delete(Role, key)


def _render_section(reader: Reader, section: str) -> Iterator[str]:
    """Yields the text of a section, in parts."""
    kinds = _WHOLE_SECTIONS.get(section)
    if kinds is not None:
        whole: dict[str, Any] = {f"{kind}s": tuple(reader.list(KINDS[kind])) for kind in kinds}
        yield render_sections(PolicyDocument(**whole))
        return
    render, after = render_sections, None
    while True:
        page = reader.list(KINDS[section.removesuffix("s")], after, _PAGE_ITEMS)
        yield render(PolicyDocument(**{section: tuple(page)}))  # type: ignore[arg-type]
        if len(page) < _PAGE_ITEMS:
            return
        render, after = render_more, key_of(page[-1])
