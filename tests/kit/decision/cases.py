"""Policy cases in data: `given` a policy and facts, `ask`, `expect` a decision, `expect_audit`.

A file of `tests/golden/cases` holds one `given` and a list of `checks`. What answers is a parameter
of `run_case`, so that the same cases go through the pure core, the wire, and whatever comes.

    description: what the case is about
    given:
      policy: <a policy document>
      revoked_sessions: [{session, user}]
    checks:
      - ask:
          actor: {user, session, organization, impersonator, claims, second_factor_minutes}
          permission: course:edit
          resource: {type, id, organization, parent: {type, id}, attributes}
          context: {...}
        expect: {decision: allow | deny, reason, rule, grant, resource_organization}
        expect_audit: {user, permission, resource, ...} | null

`expect` and `expect_audit` name the fields that matter; other fields may have any value.
`expect_audit: null` says that nothing is recorded; without it the audit is not checked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pdp.attributes import normalise_attributes
from pdp.decision import build_policy, decide, prepare
from pdp.document import PolicyDocument, parse_document
from pdp.model import (
    Actor,
    Decision,
    DecisionRecord,
    InOrganization,
    OnResource,
    OrganizationFacts,
    Question,
    Resource,
    ResourceFacts,
    ResourceRef,
    RevokedSession,
    ToOrganizationRole,
    ToUser,
    UserFacts,
    VerifiedToken,
)

CASES = Path(__file__).parents[2] / "golden" / "cases"
NOW = 1_790_000_000.0
"""For evaluators without a clock; the cases hold at any time of this decade."""
TOKEN_SECONDS = 60


@dataclass(frozen=True)
class Given:
    """The policy and the facts."""

    policy_text: str
    """A policy document."""
    revoked_sessions: tuple[RevokedSession, ...] = ()


@dataclass(frozen=True)
class Asked:
    """The question, and the contents of the actor's token."""

    actor: Actor
    question: Question
    claims: Mapping[str, Any] = field(default_factory=dict)
    second_factor_minutes: float | None = None


@dataclass(frozen=True)
class Check:
    """A question and the expected answer."""

    asked: Asked
    expect: Mapping[str, Any]
    expect_audit: Mapping[str, Any] | None
    looks_at_audit: bool


@dataclass(frozen=True)
class Case:
    """One file."""

    name: str
    description: str
    given: Given
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Answer:
    """A decision and its audit records; None if the evaluator keeps no records."""

    decision: Decision
    records: Sequence[DecisionRecord] | None = None


Ask = Callable[[Given, Asked], Answer]


def load_cases(directory: Path = CASES) -> list[Case]:
    """All cases, by name."""
    return [_case(path) for path in sorted(directory.glob("*.yaml"))]


def run_case(case: Case, ask: Ask) -> None:
    """Asks every question of a case. Raises AssertionError if an answer is not the expected one."""
    for number, check in enumerate(case.checks, 1):
        where = f"{case.name}, check {number}"
        answer = ask(case.given, check.asked)
        found = _decision_fields(answer.decision)
        _compare(where, check.expect, found)
        if check.looks_at_audit and answer.records is not None:
            if check.expect_audit is None:
                assert not answer.records, f"{where}: {answer.records} recorded"
            else:
                assert len(answer.records) == 1, f"{where}: {len(answer.records)} records"
                _compare(f"{where}, audit", check.expect_audit, _record_fields(answer.records[0]))


def ask_core(given: Given, asked: Asked) -> Answer:
    """Asks the pure core, which keeps no records."""
    document = parse_document(given.policy_text)
    return Answer(decide_document(document, given.revoked_sessions, asked))


def decide_document(
    document: PolicyDocument, revoked: Sequence[RevokedSession], asked: Asked
) -> Decision:
    """The core's decision from a whole document."""
    grants = document.grants or ()
    role_grants = [grant for grant in grants if isinstance(grant.subject, ToOrganizationRole)]
    actor = asked.actor
    user = next((one for one in document.users or () if one.id == actor.user_id), None)
    facts = user and UserFacts(
        user,
        {
            one.organization_id: one.role
            for one in document.memberships or ()
            if one.user_id == user.id
        },
        tuple(grant for grant in grants if grant.subject == ToUser(user.id)),
        frozenset(one.session_id for one in revoked if one.user_id == user.id),
    )
    active = actor.organization_id
    organization = active and OrganizationFacts(
        active, tuple(grant for grant in role_grants if grant.scope == InOrganization(active))
    )
    token = VerifiedToken(
        actor,
        "https://issuer",
        "key",
        NOW + TOKEN_SECONDS,
        asked.claims,
        second_factor_minutes=asked.second_factor_minutes,
    )
    policy = build_policy(
        1,
        document.permissions or (),
        document.roles or (),
        document.rules or (),
        grants,
        resource_types=document.resource_types or (),
    )
    stored = {(one.type, one.id) for one in document.resources or ()}
    chain = tuple(
        ResourceFacts(
            one,
            tuple(
                grant
                for grant in role_grants
                if grant.scope == OnResource(ResourceRef(one.type, one.id))
            ),
            stored=(one.type, one.id) in stored,
        )
        for one in _chain(document, asked.question.resource)
    )
    standing = prepare(policy, token, facts, organization or None, NOW)
    return decide(standing, asked.question, chain)


def _chain(document: PolicyDocument, asked: Resource | None) -> list[Resource]:
    stored = {(one.type, one.id): one for one in document.resources or ()}
    chain: list[Resource] = []
    while asked is not None:
        known = stored.get((asked.type, asked.id))
        if known is None:
            chain.append(asked)
        else:  # what is stored wins, attribute by attribute
            attributes = {**asked.attributes, **known.attributes}
            chain.append(
                Resource(known.type, known.id, known.organization_id, known.parent, attributes)
            )
        above = chain[-1].parent
        asked = above and (stored.get((above.type, above.id)) or Resource(above.type, above.id))
    return chain


def _case(path: Path) -> Case:
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    given = raw["given"]
    return Case(
        path.stem,
        raw["description"],
        Given(
            yaml.safe_dump(given["policy"], sort_keys=False, allow_unicode=True),
            tuple(
                RevokedSession(one["session"], one["user"])
                for one in given.get("revoked_sessions", ())
            ),
        ),
        tuple(
            Check(
                _asked(one["ask"]),
                one["expect"],
                one.get("expect_audit"),
                "expect_audit" in one,
            )
            for one in raw["checks"]
        ),
    )


def _asked(raw: Mapping[str, Any]) -> Asked:
    actor = raw["actor"]
    return Asked(
        Actor(
            actor["user"],
            actor.get("session", "sess_1"),
            actor.get("organization"),
            actor.get("impersonator"),
        ),
        Question(
            raw["permission"],
            _resource(raw.get("resource")),
            normalise_attributes(raw.get("context", {}), "context"),
        ),
        normalise_attributes(actor.get("claims", {}), "claims"),
        actor.get("second_factor_minutes"),
    )


def _resource(raw: Mapping[str, Any] | None) -> Resource | None:
    if raw is None:
        return None
    parent = raw.get("parent")
    return Resource(
        raw["type"],
        raw["id"],
        raw.get("organization"),
        parent and ResourceRef(parent["type"], parent["id"]),
        normalise_attributes(raw.get("attributes", {}), "attributes"),
    )


def _decision_fields(decision: Decision) -> dict[str, Any]:
    kind = decision.reason.denial_kind
    return {
        "decision": decision.effect.value,
        "reason": decision.reason.name,
        "kind": kind and kind.value,
        "rule": decision.rule_id,
        "grant": decision.grant_id,
        "resource_organization": decision.resource_organization_id,
    }


def _record_fields(record: DecisionRecord) -> dict[str, Any]:
    actor = record.actor
    return {
        "decision": record.effect.value,
        "reason": record.reason.name,
        "user": actor and actor.user_id,
        "session": actor and actor.session_id,
        "organization": actor and actor.organization_id,
        "impersonator": actor and actor.impersonator_id,
        "permission": record.permission,
        "resource": record.resource and f"{record.resource.type}/{record.resource.id}",
        "resource_organization": record.resource_organization_id,
        "rule": record.rule_id,
        "grant": record.grant_id,
    }


def _compare(where: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    unknown = wanted.keys() - found.keys()
    assert not unknown, f"{where}: there is no {sorted(unknown)}"
    assert {key: found[key] for key in wanted} == dict(wanted), f"{where}: found {dict(found)}"
