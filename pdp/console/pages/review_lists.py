"""The lists of `pdp review` as rows of texts and links: what to ask, and how a finding looks."""

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pdp import names
from pdp.audit import Coverage, DecisionRecord, FindingPage, Window
from pdp.console.pages.inputs import link_to_explanation, number_of
from pdp.console.parts import CALLER, ConsoleParts, Visit
from pdp.console.rendering import address
from pdp.decision import AccessPaths
from pdp.errors import InvalidRequest
from pdp.model import Actor, Grant, InOrganization, OnResource, Resource, ResourceRef, ToUser
from pdp.reviews import GrantFindingPage, Row
from pdp.reviews.report import GRANT_COLUMNS, grant_cells, time_cell

DAYS_MAX: Final = 3650
_DAY_SECONDS: Final = 86_400.0

_PATH_COLUMNS: Final = ("effect", "role", "grant", "rule", "condition", "until")
_DECISION_COLUMNS: Final = (
    *("time", "decision", "reason", "user", "impersonator", "organization", "permission"),
    *("resource", "rule", "grant", "id"),
)


class Cell(NamedTuple):
    """A text of a row."""

    text: str
    link: str = ""
    """The address that the text leads to; empty: none."""


@dataclass(frozen=True, slots=True)
class Found:
    """A part of a list."""

    rows: Sequence[Sequence[Cell]]
    after: Sequence[str]
    """The key of the next part; empty: the list is complete."""
    coverage: Coverage | None = None
    """Of a list that reads the log."""
    refusal: str = ""
    """Why everything is denied to the user."""


Ask = Callable[[ConsoleParts, Visit, Sequence[str], int], Awaitable[Found]]


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of `pdp review`."""

    title: str
    columns: Sequence[str]
    ask: Ask
    """Arguments: parts, visit, the key after which to continue, the largest number of findings."""
    key: str
    """The parts of a key: `t` is a time, `n` a text."""
    fields: Sequence[str] = ()
    """Parameters of the address, without which there is no list."""
    days: int | None = None
    """The default of the length in days; None: the list has none."""
    reads_allows: bool = False
    """Whether the list needs logged allows."""
    if_missing: str = "Decisions in the other times may be missing from the list."
    """How decisions that are missing from the log affect the list."""


async def _who(parts: ConsoleParts, visit: Visit, after: Sequence[str], size: int) -> Found:
    type_, _, id_ = visit.get("resource").partition(":")
    resource = None
    if type_:
        wrong = names.check_resource_type(type_, "resource")
        wrong = wrong or names.check_identifier(id_, "resource")
        if wrong is not None:
            raise InvalidRequest(wrong)
        resource = Resource(type_, id_)
    place = (after[0], after[1]) if after else ("", "")
    _, page = await parts.queries.actors(
        visit.get("permission"), resource, CALLER, size=size, after=place
    )
    ref = None if resource is None else ResourceRef(resource.type, resource.id)
    rows = [
        [_user(actor.user_id), _organization(actor.organization_id), *path]
        for actor in page.actors
        for path in _path_cells(
            actor.paths,
            link_to_explanation(actor.user_id, actor.organization_id, visit.get("permission"), ref),
        )
    ]
    return Found(rows, page.after or ())


async def _user_access(parts: ConsoleParts, visit: Visit, after: Sequence[str], size: int) -> Found:
    place = Row(*after) if after else None
    page = await parts.user_access.of_user(visit.get("user"), CALLER, size=size, after=place)
    user = visit.get("user")
    rows = [
        [_organization(row.organization_id), _resource(_ref(row)), Cell(row.permission), *path]
        for row, paths in ((access.row, access.paths) for access in page.access)
        for path in _path_cells(
            paths, link_to_explanation(user, row.organization_id, row.permission, _ref(row))
        )
    ]
    refusal = page.refusal
    text = "" if refusal is None else f"{refusal.name}: {refusal.value}"
    return Found(rows, page.after or (), refusal=text)


def _ref(row: Row) -> ResourceRef | None:
    return ResourceRef(row.resource_type, row.resource_id) if row.resource_type else None


def _of_grants(
    read: Callable[[ConsoleParts, int, Sequence[str], int], GrantFindingPage],
) -> Ask:
    async def ask(parts: ConsoleParts, visit: Visit, after: Sequence[str], size: int) -> Found:
        days = days_of(visit, 0)
        page = await parts.blocking(lambda: read(parts, days, after, size))
        rows = []
        for finding in page.findings:
            row = _grant(finding.grant)
            if page.coverage is not None:
                known = f"{days_text(page.coverage.covered_seconds)} of {days}"
                row += [Cell(time_cell(finding.last_used_at)), Cell(known)]
            rows.append(row)
        return Found(rows, page.after, page.coverage)

    return ask


def _of_decisions(read: Callable[[ConsoleParts, Window, str, int], FindingPage]) -> Ask:
    async def ask(parts: ConsoleParts, visit: Visit, after: Sequence[str], size: int) -> Found:
        # All pages end at the time of the first.
        text, key = after or (repr(parts.clock()), "")
        until = float(text)
        seconds = days_of(visit, 0) * _DAY_SECONDS
        window = Window(max(0.0, until - seconds), until)
        page = await parts.blocking(lambda: read(parts, window, key, size))
        coverage = await parts.blocking(lambda: parts.findings.coverage(seconds, parts.clock()))
        rows = []
        for finding in page.findings:
            row = _decision(finding.decision)
            if finding.denied_before is not None:
                row.append(_time(finding.denied_before))
            rows.append(row)
        return Found(rows, () if page.after is None else (text, page.after), coverage)

    return ask


LISTINGS: Final = {
    "who": Listing(
        "Which users may use a resource, and through which grant?",
        ("user", "organization", *_PATH_COLUMNS),
        _who,
        "nn",
        fields=("permission",),
    ),
    "user": Listing(
        "What may a user do, and through what?",
        ("organization", "resource", "permission", *_PATH_COLUMNS),
        _user_access,
        "nnnn",
        fields=("user",),
    ),
    "unused": Listing(
        "Grants that nobody used",
        (*GRANT_COLUMNS, "last used", "days known"),
        _of_grants(lambda parts, *rest: parts.grant_reviews.unused(*rest)),
        "tn",
        days=90,
        reads_allows=True,
        if_missing="A use in the other times may be missing, so a grant that is listed here may "
        "have been used. Grants are listed whatever their age.",
    ),
    "ending": Listing(
        "Which grants end soon?",
        GRANT_COLUMNS,
        _of_grants(lambda parts, *rest: parts.grant_reviews.ending(*rest)),
        "ttn",
        days=30,
    ),
    "cross-tenant": Listing(
        "Which grants cross tenants?",
        GRANT_COLUMNS,
        _of_grants(lambda parts, _, *rest: parts.grant_reviews.cross_tenant(*rest)),
        "n",
    ),
    "disabled": Listing(
        "Which disabled users still have grants?",
        GRANT_COLUMNS,
        _of_grants(lambda parts, _, *rest: parts.grant_reviews.of_disabled_users(*rest)),
        "n",
    ),
    "impersonators": Listing(
        "What did impersonators do?",
        _DECISION_COLUMNS,
        _of_decisions(lambda parts, *rest: parts.findings.impersonated(*rest)),
        "tn",
        days=7,
    ),
    "denied-then-granted": Listing(
        "What was denied, then granted within an hour?",
        (*_DECISION_COLUMNS, "denied at"),
        _of_decisions(lambda parts, *rest: parts.findings.granted_after_denial(*rest)),
        "tn",
        days=7,
        reads_allows=True,
    ),
    "first-time": Listing(
        "Who used a permission for the first time?",
        _DECISION_COLUMNS,
        _of_decisions(lambda parts, *rest: parts.findings.first_accesses(*rest)),
        "tn",
        days=7,
        reads_allows=True,
        if_missing="An earlier use may be missing, so a use that is listed may not be the first; "
        "others may be missing from the list.",
    ),
}


def days_of(visit: Visit, default: int) -> int:
    """The length of a window in days. Raises InvalidRequest."""
    return number_of(visit.get("days"), "days", 1, DAYS_MAX) or default


def days_text(seconds: float) -> str:
    """Days with one digit, never rounded up. Times have an error below a millisecond."""
    return f"{math.floor((seconds + 0.001) / _DAY_SECONDS * 10) / 10:.1f}"


def length_text(seconds: float) -> str:
    """A length for people, never rounded up."""
    for unit, size in (("day", _DAY_SECONDS), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"


# --- cells ----------------------------------------------------------------------------------------


def _user(id_: str | None) -> Cell:
    return Cell(id_, address("/user", id=id_)) if id_ else Cell("")


def _organization(id_: str | None) -> Cell:
    return Cell(id_, address("/decisions", organization=id_)) if id_ else Cell("")


def _resource(ref: ResourceRef | None) -> Cell:
    if ref is None:
        return Cell("")
    link = address("/resource", type=ref.type, id=ref.id) if ref.id else ""
    return Cell(f"{ref.type}:{ref.id}", link)


def _role(name: str) -> Cell:
    return Cell(name, address("/role", name=name))


def _grant(grant: Grant) -> list[Cell]:
    id_, role, subject, scope, *times = grant_cells(grant)
    subject_link = scope_link = ""
    if isinstance(grant.subject, ToUser):
        subject_link = _user(grant.subject.user_id).link
    if isinstance(grant.scope, InOrganization):
        scope_link = _organization(grant.scope.organization_id).link
    elif isinstance(grant.scope, OnResource):
        scope_link = _resource(grant.scope.resource).link
    return [
        Cell(id_),
        _role(role),
        Cell(subject, subject_link),
        Cell(scope, scope_link),
        *map(Cell, times),
    ]


def _path_cells(paths: AccessPaths, explained: str) -> Iterator[list[Cell]]:
    """`explained`: the address of the explanation."""
    ways = [("allow", path) for path in paths.allowed_by]
    ways += [("deny", path) for path in paths.denied_by]
    for effect, path in ways:
        grant = path.grant
        yield [
            Cell(effect, explained),
            _role(grant.role),
            Cell(grant.id),
            Cell(path.rule_id),
            Cell(path.condition),
            Cell(time_cell(grant.expires_at)),
        ]


def _time(record: DecisionRecord) -> Cell:
    return Cell(time_cell(record.decided_at), address("/decision", id=record.decision_id))


def _decision(record: DecisionRecord) -> list[Cell]:
    actor = record.actor or Actor("", "", None)
    return [
        _time(record),
        Cell(record.effect.value),
        Cell(record.reason.name),
        _user(actor.user_id),
        _user(actor.impersonator_id),
        _organization(actor.organization_id),
        Cell(record.permission),
        _resource(record.resource),
        Cell(record.rule_id or ""),
        Cell(record.grant_id or ""),
        Cell(record.decision_id),
    ]
