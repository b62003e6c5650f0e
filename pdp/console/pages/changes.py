"""Changes: who changed what, and the policy of earlier revisions."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Final

from pdp.administration_records import AdministrationRecord, Source, Values
from pdp.administrator.history import policy_at, policy_changes, records_of
from pdp.audit import ChangeFilter
from pdp.console.pages.inputs import choice_of, next_page, number_of, time_of
from pdp.console.parts import ConsoleParts, Page, Shown, Visit
from pdp.console.tenant import changes_of
from pdp.document import Action, as_written, described, differences, render_document
from pdp.errors import InvalidRequest, NotFound, Violation
from pdp.facts.store.recording import POLICY_KINDS
from pdp.kinds import KINDS
from pdp.model import Entity

PAGE_ROWS: Final = 50
CHARACTERS_MAX: Final = 256 * 1024
LINES_MAX: Final = 500
LOOKED_AT_MAX: Final = 500
"""Changes that a page of one organization looks at; it may show none of them."""
REVISION_MAX: Final = 2**53
SECTIONS: Final = ("permissions", "resource_types", "roles", "routes")
"""Of the policy as text: without people and grants."""
POLICY: Final = "policy"
"""The kinds of `SECTIONS` as one choice."""
POLICY_OF_TEXT: Final = ("permission", "resource_type", "role", "rule", "route")
FOLDED_MIN: Final = 4
"""So many changes of a kind in a revision share a row."""
_SEPARATORS: Final = {"resource": "[:/]", "membership": "/", "session": "/"}
"""Of kinds with two ids in a key. A type of resources has neither sign in its name."""
_KINDS: Final = (*KINDS, "session", "clerk_user", "organization_role", "organization_permission")
_CHOICES: Final = (POLICY, *_KINDS)
_SOURCES: Final = {source.name: source for source in Source}


def filter_of(visit: Visit) -> ChangeFilter:
    """The filter in an address. Raises InvalidRequest."""
    kind, key = visit.get("kind"), [visit.get("key"), visit.get("second")]
    if kind and kind not in (_CHOICES if visit.organization is None else _KINDS):
        raise InvalidRequest(Violation("kind", f"{kind!r} is not one of the choices"))
    if any(key) and kind in ("", POLICY):
        raise InvalidRequest(Violation("key", "needs the kind of the entity"))
    if kind in _SEPARATORS and not key[1]:
        key = re.split(_SEPARATORS[kind], key[0], maxsplit=1)
    return ChangeFilter(
        kind=kind or None,
        key=tuple(filter(None, key)) or None,
        name=visit.get("by") or None,
        source=choice_of(visit.get("source"), _SOURCES, "source"),
        not_before=time_of(visit.get("from"), "from"),
        before=time_of(visit.get("to"), "to"),
    )


async def search(parts: ConsoleParts, visit: Visit) -> Shown:
    """One page of the changes that match, newest first."""
    problem, older = "", ""
    found: Sequence[AdministrationRecord] = ()
    organization = visit.organization
    try:
        where, after = filter_of(visit), _place(visit.get("after"))
    except InvalidRequest as error:
        problem = error.message
    else:
        looked_at = await parts.blocking(lambda: _newest(parts, where, after, LOOKED_AT_MAX + 1))
        found = looked_at[:LOOKED_AT_MAX]
        if organization is None:
            found = [record for run in folded(found)[:PAGE_ROWS] for record in run]
        if len(looked_at) > len(found):
            revision, number = found[-1].revision, found[-1].number
            if organization is not None:
                found, (revision, number) = whole_revisions(found)
            older = next_page("/changes", visit, after=f"{revision}-{number}")
        if organization is not None:
            found = changes_of(found, organization)
            if where.name is not None:  # which may have been left out
                found = [record for record in found if record.name == where.name]
    values = {
        "found": folded(found),
        "older": older,
        "newest": next_page("/changes", visit, after="") if visit.get("after") else "",
        "problem": problem,
        "asked": visit,
        "kinds": _CHOICES if organization is None else _KINDS,
        "sources": sorted(_SOURCES),
        "revision": parts.replica.revision,
    }
    return Shown("changes.html", values)


def folded(found: Sequence[AdministrationRecord]) -> Sequence[Sequence[AdministrationRecord]]:
    """The records in their order; those of one revision, kind and action together, if many."""
    rows: list[Sequence[AdministrationRecord]] = []
    for _, run in groupby(
        found, lambda one: (one.revision, one.kind, not one.before, not one.after)
    ):
        records = list(run)
        rows += [records] if len(records) >= FOLDED_MIN else [[record] for record in records]
    return rows


def whole_revisions(
    found: Sequence[AdministrationRecord],
) -> tuple[Sequence[AdministrationRecord], tuple[int, int]]:
    """A part of a list without its last revision, which may go on, and the place behind the rest:
    it has no number of a record, which would tell a tenant how much others changed. A revision
    that fills the part stays."""
    last = found[-1]
    whole = [record for record in found if record.revision > last.revision]
    return (whole, (last.revision + 1, 0)) if whole else (found, (last.revision, last.number))


def _newest(
    parts: ConsoleParts, where: ChangeFilter, after: tuple[int, int] | None, limit: int
) -> Sequence[AdministrationRecord]:
    """A list of the log; `POLICY` is all of its kinds."""
    kinds = POLICY_OF_TEXT if where.kind == POLICY else (where.kind,)
    found = [
        record
        for kind in kinds
        for record in parts.administration_log.list(replace(where, kind=kind), after, limit)
    ]
    return sorted(found, key=lambda one: (one.revision, one.number), reverse=True)[:limit]


async def show(parts: ConsoleParts, visit: Visit) -> Shown:
    """One change, field by field."""
    place = _place(visit.get("id"))
    if place is None:
        raise InvalidRequest(Violation("id", "must be set"))
    revision, number = place
    found = await parts.blocking(
        lambda: parts.administration_log.list(ChangeFilter(), (revision, number + 1), 1)
    )
    found = [record for record in found if (record.revision, record.number) == place]
    if visit.organization is not None:
        found = changes_of(found, visit.organization)
    if not found:
        raise NotFound("change", visit.get("id"))
    record = found[0]
    values = {
        "record": record,
        "fields": fields_of(record.before, record.after),
        "is_of_policy": record.kind in POLICY_KINDS,
        "has_trees": parts.trees is not None,
    }
    return Shown("change.html", values)


async def policy(parts: ConsoleParts, visit: Visit) -> Shown:
    """The policy as text, of now or of a revision, without people and grants."""
    wanted = number_of(visit.get("revision"), "revision", 0, REVISION_MAX)
    if wanted is None:
        text, revision = await parts.blocking(lambda: parts.administrator.export(SECTIONS))
    else:
        revision = wanted
        text = await parts.blocking(
            lambda: render_document(replace(policy_at(parts.store, revision), grants=None))
        )
    last = await parts.blocking(
        lambda: _newest(parts, ChangeFilter(kind=POLICY), (revision + 1, 0), 1)
    )
    values = {
        "last": last[0] if last else None,
        "text": text[:CHARACTERS_MAX],
        "is_cut": len(text) > CHARACTERS_MAX,
        "revision": revision,
        "is_now": wanted is None,
        "sections": SECTIONS,
    }
    return Shown("policy.html", values)


async def diff(parts: ConsoleParts, visit: Visit) -> Shown:
    """What changed in the policy from one revision to another, and who changed it."""
    before = number_of(visit.get("from"), "from", 0, REVISION_MAX)
    after = number_of(visit.get("to"), "to", 0, REVISION_MAX)
    if before is None or after is None:
        raise InvalidRequest(Violation("from", "and `to` must be revisions"))

    def compare() -> Sequence[tuple[str, Sequence[Any], Sequence[AdministrationRecord]]]:
        store = parts.store
        changes = differences(policy_at(store, before), policy_at(store, after))
        whole = {(change.kind, change.key): change.after or change.before for change in changes}
        records = policy_changes(store, *sorted((before, after)))
        return [
            (
                line.text,
                [] if line.action is Action.UPDATE else _written(whole[line.kind, line.keys[0]]),
                records_of(line, records),
            )
            for line in described(changes)[: LINES_MAX + 1]
        ]

    lines = await parts.blocking(compare)
    values = {
        "before": before,
        "after": after,
        "lines": lines[:LINES_MAX],
        "is_cut": len(lines) > LINES_MAX,
    }
    return Shown("diff.html", values)


def fields_of(before: Values | None, after: Values | None) -> Sequence[tuple[str, str, str, bool]]:
    """The fields of an entity: name, value before, value after, whether they differ."""
    old, new = before or {}, after or {}
    return [
        (name, _text(old, name), _text(new, name), old.get(name) != new.get(name))
        for name in sorted({*old, *new})
    ]


def _written(entity: Entity | None) -> Sequence[tuple[str, str]]:
    """The fields of an entity as a document writes them."""
    written = {} if entity is None else as_written(entity)
    return [
        (name, value if isinstance(value, str) else _text(written, name))
        for name, value in written.items()
    ]


def _text(values: Values, name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False, sort_keys=True) if name in values else ""


def _place(text: str) -> tuple[int, int] | None:
    """Revision and number in an address; None: it is empty. Raises InvalidRequest."""
    if not text:
        return None
    revision, _, number = text.partition("-")
    found = [number_of(part, "id", 0, REVISION_MAX) for part in (revision, number)]
    if None in found:
        raise InvalidRequest(Violation("id", "is not a change such as 12-0"))
    return found[0] or 0, found[1] or 0


PAGES = (
    Page("/changes", "changes", "Changes", search, in_menu=True, of_organization=True),
    Page("/change", "change", "Change", show, within="/changes", of_organization=True),
    Page("/policy", "policy", "Policy", policy, in_menu=True),
    Page("/diff", "diff", "Difference", diff, within="/policy"),
)
