"""Policy tests: a policy with facts, questions about it, and the expected decisions.

`docs/policy-tools.md` documents the format. Test files are read as strictly as policies: a
misspelled name is rejected with its line, because a test that tests nothing is worse than none.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal, TypeVar

from pydantic import Field, ValidationError

from pdp.attributes import normalise_attributes
from pdp.document.nodes import Node, Path, path_text, plain, spot_of
from pdp.document.parse import parse_document, parse_tree
from pdp.document.policy_document import PolicyDocument
from pdp.document.references import reference_violations
from pdp.document.shapes import Attributes, ResourceRefShape, Shape, sentence
from pdp.document.timestamps import parse_time
from pdp.document.world import Asked
from pdp.document.yaml_text import read_yaml
from pdp.errors import InvalidPolicy, InvalidRequest, Violation
from pdp.kinds import SECTIONS
from pdp.model import (
    Actor,
    Decision,
    Effect,
    Question,
    Reason,
    Resource,
    ResourceRef,
    RevokedSession,
)

S = TypeVar("S", bound=Shape)

FACTS: Final = ("grants", "users", "organizations", "memberships", "resources")
"""Sections that a test may add to its policy."""
_REASONS: Final = {reason.name for reason in Reason}
_EFFECTS: Final = {effect.value for effect in Effect}


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """A question and its expected decision."""

    name: str
    line: int
    asked: Asked
    expect: Mapping[str, Any]
    """Fields of `decision_fields`; an omitted field may have any value."""
    now: float | None
    """Seconds since 1970; None: the current time."""
    expect_audit: Mapping[str, Any] | None = None
    """Fields of the record in a server's audit log. Only tests against a server check them."""
    looks_at_audit: bool = False


@dataclass(frozen=True, slots=True)
class TestFile:
    """All tests of a policy with its facts."""

    __test__ = False  # pytest would take a class of this name for tests of its own

    description: str
    document: PolicyDocument
    revoked_sessions: tuple[RevokedSession, ...]
    tests: tuple[PolicyTest, ...]


class ActorShape(Shape):
    """The actor of a question: the user, and what the session token claims."""

    user: str
    session: str = "sess_1"
    organization: str | None = None
    impersonator: str | None = None
    claims: Attributes = Field(default_factory=dict)
    claimed_permissions: list[str] = Field(default_factory=list)
    first_factor_minutes: float | None = Field(default=None, ge=0)
    second_factor_minutes: float | None = Field(default=None, ge=0)


class ResourceShape(Shape):
    """The resource of a question."""

    type: str
    id: str
    organization: str | None = None
    parent: ResourceRefShape | None = None
    attributes: Attributes = Field(default_factory=dict)


class AskShape(Shape):
    """The question of a check."""

    actor: Any
    permission: str
    resource: Any = None
    context: Attributes = Field(default_factory=dict)
    now: str | None = None


class ExpectShape(Shape):
    """The expected fields of the decision."""

    decision: Literal["allow", "deny"] | None = None
    reason: str | None = None
    kind: Literal["unauthenticated", "forbidden"] | None = None
    rule: str | None = None
    grant: str | None = None
    resource_organization: str | None = None


class CheckShape(Shape):
    """A single question with its expected decision."""

    name: str = ""
    ask: AskShape
    expect: Any = None
    expect_reason: str | None = None
    expect_audit: dict[str, Any] | None = None


class RowShape(Shape):
    """A row of a table: a question, and the expected effect for each actor."""

    permission: str
    resource: Any = None
    context: Attributes = Field(default_factory=dict)
    expect: list[str]


class TableShape(Shape):
    """The same questions for several actors."""

    name: str = ""
    actors: list[Any]
    now: str | None = None
    rows: list[Any]


class SessionShape(Shape):
    """A revoked session and its user."""

    session: str
    user: str


class GivenShape(Shape):
    """What the tests of a file share: policy, facts, named actors and the time."""

    policy: Any
    facts: dict[str, Any] = Field(default_factory=dict)
    revoked_sessions: list[SessionShape] = Field(default_factory=list)
    actors: dict[str, ActorShape] = Field(default_factory=dict)
    now: str | None = None


class FileShape(Shape):
    """A whole test file."""

    description: str = ""
    given: GivenShape
    checks: list[Any] = Field(default_factory=list)
    tables: list[Any] = Field(default_factory=list)


def parse_tests(text: str, read_policy: Callable[[str], str]) -> TestFile:
    """Reads a test file.

    Args:
        text: the file, in YAML.
        read_policy: returns the text of the policy file with the given path, as the test file has
            it.

    Raises:
        InvalidPolicy: the file or its policy has problems; each has its place in its file.
        OSError, ValueError: as `read_policy` raises them.
    """
    root, problems = read_yaml(text)
    reader = _Reader(root)
    if problems:
        raise InvalidPolicy(*problems)
    return reader.file(read_policy)


def decision_fields(decision: Decision) -> dict[str, Any]:
    """The fields of a decision that tests may expect."""
    kind = decision.reason.denial_kind
    return {
        "decision": decision.effect.value,
        "reason": decision.reason.name,
        "kind": kind and kind.value,
        "rule": decision.rule_id,
        "grant": decision.grant_id,
        "resource_organization": decision.resource_organization_id,
    }


class _Reader:
    """Reads a file; stops at the first problem."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._actors: Mapping[str, ActorShape] = {}
        self._now: float | None = None

    def file(self, read_policy: Callable[[str], str]) -> TestFile:
        shape = self._shape(FileShape, self._root, ())
        given = shape.given
        self._actors = given.actors
        self._now = self._time(given.now, ("given", "now"))
        document = self._document(given, read_policy)
        tests = (*self._checks(), *self._tables())
        if not tests:
            raise self._wrong((), "has neither checks nor tables, so it tests nothing")
        revoked = tuple(
            RevokedSession(revoked.session, revoked.user) for revoked in given.revoked_sessions
        )
        return TestFile(shape.description, document, revoked, tests)

    def _document(self, given: GivenShape, read_policy: Callable[[str], str]) -> PolicyDocument:
        if isinstance(given.policy, str):
            document = parse_document(read_policy(given.policy))
        else:
            document = parse_tree(_child(self._root, ("given", "policy")))
        for name in given.facts:
            if name not in FACTS:
                raise self._wrong(("given", "facts", name), f"is not one of {', '.join(FACTS)}")
        if not given.facts:
            return document
        facts = parse_tree(_child(self._root, ("given", "facts")))
        added: dict[str, Any] = {
            name: (*(getattr(document, name) or ()), *(getattr(facts, name) or ()))
            for name in SECTIONS
            if name in given.facts
        }
        both = dataclasses.replace(document, **added)
        problems = reference_violations(both)
        if problems:
            raise InvalidPolicy(*problems)
        return both

    def _checks(self) -> Iterator[PolicyTest]:
        for index, node in enumerate(self._items("checks")):
            path = ("checks", index)
            check = self._shape(CheckShape, node, path)
            asked = self._asked(check.ask, (*path, "ask"))
            expect = self._expect(check.expect, (*path, "expect"))
            if check.expect_reason is not None:
                expect |= self._reason(check.expect_reason, (*path, "expect_reason"))
            if not expect:
                raise self._wrong(path, "expects nothing: write expect or expect_reason")
            yield PolicyTest(
                check.name or _default_name(asked),
                node.spot.line,
                asked,
                expect,
                self._time(check.ask.now, (*path, "ask", "now")) or self._now,
                check.expect_audit,
                looks_at_audit="expect_audit" in check.model_fields_set,
            )

    def _tables(self) -> Iterator[PolicyTest]:
        for number, node in enumerate(self._items("tables")):
            path = ("tables", number)
            table = self._shape(TableShape, node, path)
            now = self._time(table.now, (*path, "now")) or self._now
            actors = [
                self._actor(actor, (*path, "actors", index))
                for index, actor in enumerate(table.actors)
            ]
            for index, row_node in enumerate(_child(node, ("rows",)).value):
                row_path = (*path, "rows", index)
                row = self._shape(RowShape, row_node, row_path)
                if len(row.expect) != len(actors):
                    text = f"has {len(row.expect)} answers for {len(actors)} actors"
                    raise self._wrong((*row_path, "expect"), text)
                question = self._question(row.permission, row.resource, row.context, row_path)
                for column, (actor, wanted) in enumerate(zip(actors, row.expect, strict=True)):
                    asked = _asked(actor, question)
                    expect = self._expect(wanted, (*row_path, "expect", column))
                    name = _default_name(asked)
                    yield PolicyTest(
                        f"{table.name}: {name}" if table.name else name,
                        row_node.spot.line,
                        asked,
                        expect,
                        now,
                    )

    def _items(self, section: str) -> list[Node]:
        node = self._root.value.get(section)
        return node.value if node is not None else []

    def _asked(self, ask: AskShape, path: Path) -> Asked:
        actor = self._actor(ask.actor, (*path, "actor"))
        return _asked(actor, self._question(ask.permission, ask.resource, ask.context, path))

    def _actor(self, written: Any, path: Path) -> ActorShape:
        if isinstance(written, str):
            return self._actors.get(written) or ActorShape(user=written)
        return self._validated(ActorShape, written, path)

    def _question(
        self, permission: str, resource: Any, context: Mapping[str, Any], path: Path
    ) -> Question:
        try:
            return Question(
                permission,
                self._resource(resource, (*path, "resource")),
                normalise_attributes(context, "context"),
            )
        except InvalidRequest as error:
            raise self._wrong(path, error.message) from None

    def _resource(self, written: Any, path: Path) -> Resource | None:
        if written is None:
            return None
        if isinstance(written, str):
            kind, colon, identifier = written.partition(":")
            if not colon:
                raise self._wrong(path, "must be TYPE:ID, or a mapping")
            return Resource(kind, identifier)
        shape = self._validated(ResourceShape, written, path)
        parent = shape.parent
        return Resource(
            shape.type,
            shape.id,
            shape.organization,
            None if parent is None else ResourceRef(parent.type, parent.id),
            normalise_attributes(shape.attributes, "attributes"),
        )

    def _expect(self, written: Any, path: Path) -> dict[str, Any]:
        """The expected fields; written as `allow`, `deny`, a reason, or a mapping of fields."""
        if written is None:
            return {}
        if isinstance(written, str):
            return {"decision": written} if written in _EFFECTS else self._reason(written, path)
        shape = self._validated(ExpectShape, written, path)
        fields = {name: getattr(shape, name) for name in shape.model_fields_set}
        if shape.reason is not None:
            self._reason(shape.reason, (*path, "reason"))
        return fields

    def _reason(self, name: str, path: Path) -> dict[str, Any]:
        if name not in _REASONS:
            near = get_close_matches(name, (*_EFFECTS, *_REASONS), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise self._wrong(path, f"{name!r} is neither allow nor deny nor a reason{hint}")
        return {"reason": name}

    def _time(self, text: str | None, path: Path) -> float | None:
        try:
            return None if text is None else parse_time(text)
        except ValueError as error:
            raise self._wrong(path, str(error)) from None

    def _shape(self, shape: type[S], node: Node, path: Path) -> S:
        return self._validated(shape, plain(node), path)

    def _validated(self, shape: type[S], value: Any, path: Path) -> S:
        try:
            return shape.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise self._wrong((*path, *first["loc"]), sentence(first, shape)) from None

    def _wrong(self, path: Path, description: str) -> InvalidPolicy:
        return InvalidPolicy(Violation(path_text(path), description, *spot_of(self._root, path)))


def _child(node: Node, path: tuple[str, ...]) -> Node:
    for key in path:
        node = node.value[key]
    return node


def _asked(actor: ActorShape, question: Question) -> Asked:
    return Asked(
        Actor(actor.user, actor.session, actor.organization, actor.impersonator),
        question,
        claims=normalise_attributes(actor.claims, "claims"),
        claimed_permissions=tuple(sorted(actor.claimed_permissions)),
        first_factor_minutes=actor.first_factor_minutes,
        second_factor_minutes=actor.second_factor_minutes,
    )


def _default_name(asked: Asked) -> str:
    actor, (permission, resource, _) = asked.actor, asked.question
    name = actor.user_id
    if actor.organization_id is not None:
        name += f" in {actor.organization_id}"
    name += f" {permission}"
    return name if resource is None else f"{name} {resource.type}:{resource.id}"
