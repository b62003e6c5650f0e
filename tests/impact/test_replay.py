"""Recorded decisions are asked again and compared with asking the whole world."""

import json
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from pdp.audit import AnswerSource, DecisionRecord, build_records, decode, encode, new_decision_id
from pdp.decision import Policy, resolve_principal
from pdp.document import Asked, PolicyDocument, World
from pdp.impact import Redaction, inputs_of, replay
from pdp.impact.inputs import INPUTS_BYTES_MAX
from pdp.model import (
    Actor,
    Decision,
    Effect,
    Grant,
    Permission,
    Question,
    Reason,
    Resource,
    RevokedSession,
    Role,
    Rule,
    ToUser,
    User,
)
from tests.impact.documents import (
    NOW,
    ORGANIZATIONS,
    PERMISSIONS,
    REFS,
    USERS,
    random_document,
)
from tests.kit import soak
from tests.kit.stall import Stopwatch

NOTHING = Redaction(())
DEFAULT = Redaction(("*password*", "*apikey*", "*token*"))


def record_of(world: World, asked: Asked, redaction: Redaction = NOTHING) -> DecisionRecord:
    """The record of a decision, as it comes back from the log."""
    situation = world.situation(asked, NOW)
    active = situation.organizations.get(asked.actor.organization_id or "")
    principal = resolve_principal(situation.policy, situation.token, situation.user, active, NOW)
    inputs = inputs_of(principal, situation.question, situation.chain, redaction)
    decision = situation.decide()
    (record,) = build_records(
        decision.effect,
        situation.token,
        [situation.question],
        [decision],
        [new_decision_id()],
        caller="backend",
        revision=1,
        decided_at=NOW,
        inputs=[inputs],
    )
    return decode(encode(record))


def random_asked(chance: Random) -> Asked:
    ref = chance.choice([None, *REFS])
    resource = None
    if ref is not None:
        sent = {"owner": chance.choice(USERS)} if chance.random() < 0.4 else {}
        resource = Resource(ref.type, ref.id, chance.choice([None, "o1"]), attributes=sent)
    return Asked(
        Actor(
            chance.choice([*USERS * 2, "nobody"]),
            chance.choice([*["s1"] * 5, "s2"]),
            chance.choice([None, None, *ORGANIZATIONS]),
        ),
        Question(
            chance.choice([*PERMISSIONS * 3, "course:burn"]),
            resource,
            chance.choice([{}, {"place": "office"}]),
        ),
        claims={"iat": NOW},
        second_factor_minutes=chance.choice([None, 5.0]),
    )


def world_of(document: PolicyDocument) -> World:
    return World(document, [RevokedSession("s2", "u1")])


def with_rules_of(document: PolicyDocument, other: PolicyDocument) -> PolicyDocument:
    return replace(document, permissions=other.permissions, roles=other.roles, rules=other.rules)


def outcomes(seed: int) -> Iterator[tuple[DecisionRecord, Decision, Policy]]:
    """Records, what the candidate decides in the whole world, and the candidate."""
    chance = Random(seed)
    document, other = random_document(chance), random_document(chance)
    world, candidate = world_of(document), world_of(with_rules_of(document, other))
    for _ in range(10):
        asked = random_asked(chance)
        yield record_of(world, asked), candidate.situation(asked, NOW).decide(), candidate.policy


@pytest.mark.soak
def test_a_replay_flips_what_asking_the_whole_world_again_flips() -> None:
    flipped = 0
    for seed in range(soak.count(5_000, sample=75)):
        for record, decision, candidate in outcomes(seed):
            result = replay([record], candidate)
            wanted = decision.effect is not record.effect
            assert result.flipped == wanted, f"seed {seed}: {record}"
            assert result.unusable == result.without_inputs == result.inexact == 0
            for key, flips in result.flips.items():
                assert key.rule_after == decision.rule_id
                assert [one.reason for _, one in flips.examples] == [decision.reason]
            flipped += wanted
    assert flipped > 20


@pytest.mark.soak
def test_the_policy_that_decided_flips_nothing() -> None:
    for seed in range(soak.count(1_000, sample=60)):
        chance = Random(seed)
        world = world_of(random_document(chance))
        records = [record_of(world, random_asked(chance)) for _ in range(10)]
        result = replay(records, world.policy)
        assert result.flipped == 0
        assert result.same + result.before_rules == len(records)


@pytest.mark.parametrize("part", ["grants", "types", "chain"])
def test_the_comparison_notices_inputs_that_lack_something(part: str) -> None:
    def lacking(record: DecisionRecord) -> DecisionRecord:
        assert record.inputs is not None
        return replace(record, inputs=json.dumps({**json.loads(record.inputs), part: []}))

    def flips(seed: int) -> bool:
        chance = Random(seed)
        world = world_of(random_document(chance))
        records = [record_of(world, random_asked(chance)) for _ in range(10)]
        return replay(map(lacking, records), world.policy).flipped > 0

    assert any(map(flips, range(1_000)))


# --- secrets, bounds, old records -----------------------------------------------------------------


def document_with(condition: str, **attributes: Any) -> PolicyDocument:
    document = random_document(Random(3))
    return replace(
        document,
        permissions=(Permission("course:view"),),
        grants=(Grant("g", "A", ToUser("u2")),),
        resource_types=(),
        roles=(Role("A"),),
        rules=(Rule("r", "A", Effect.ALLOW, "*", condition),),
        users=(User("u2", attributes=attributes),),
    )


def asked_with(
    context: dict[str, Any] | None = None, claims: dict[str, Any] | None = None
) -> Asked:
    return Asked(
        Actor("u2", "s1"), Question("course:view", None, context or {}), claims=claims or {}
    )


@pytest.mark.parametrize(
    "values",
    [
        {"password": "hunter2"},
        {"PassWord": "hunter2"},
        {"X-API-Key": "hunter2"},
        {"api_key": "hunter2"},
        {"pass\u200bword": "hunter2"},
        {"\N{FULLWIDTH LATIN SMALL LETTER P}assword": "hunter2"},
        {"deep": [{"er": {"my password": ["hunter2"]}}]},
        {"password": {"nested": "hunter2"}},
        {"note": "eyJhbGciOiJSUzI1NiJ9.hunter2.hunter2"},
        {"note": ["Bearer hunter2hunter2"]},
        {"note": "sk_live_hunter2hunter2"},
        {"sk_live_hunter2hunter2": 1.0},
    ],
    ids=str,
)
def test_no_secret_is_recorded_whatever_the_spelling_of_its_key(values: dict[str, Any]) -> None:
    world = World(document_with("", **values))
    record = record_of(world, asked_with(values, values), DEFAULT)
    text = encode(record).decode()
    assert "hunter2" not in text
    assert text.count("[redacted]") == 3  # context, claims, attributes


@pytest.mark.parametrize(
    "values",
    [
        {"text": "eyJ" * 20_000},
        {"text": "eyJaaaaaa." * 6_000},
        {"text": "Bearer" + " " * 60_000},
        {"text": "-----BEGIN " * 6_000},
        {"\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 20_000: 1.0},
        {"p" * 60_000: "x"},
        {f"pass{index}wor": "x" for index in range(3_000)},
    ],
    ids=range(7),
)
def test_no_text_takes_long_to_redact(values: dict[str, Any]) -> None:
    redaction = Redaction(("*password*", "*a*b*c*d*e*"))
    redaction.redact({"warm": "up"})
    watch = Stopwatch()
    redaction.redact(values)
    assert watch.seconds < 0.5


def test_what_is_no_secret_is_recorded_as_it_is() -> None:
    values = {"passenger": "Ada", "keys": ["a"], "note": "a.b.c"}
    record = record_of(World(document_with("")), asked_with(values), DEFAULT)
    assert json.loads(record.inputs or "")["values"]["context"] == values


def test_a_candidate_that_reads_a_removed_value_is_counted_and_not_guessed() -> None:
    context = {"password": "x", "place": "office"}
    record = record_of(World(document_with("")), asked_with(context), DEFAULT)
    for condition, exact in {
        "context.place == 'office'": True,
        "context.password == 'x'": False,
        "context.password == '[redacted]'": False,
        "size(context) == 2": False,
        "has(context.password)": False,
    }.items():
        result = replay([record], World(document_with(condition)).policy)
        assert (result.same, result.inexact) == ((1, 0) if exact else (0, 1)), condition


def test_large_inputs_are_cut_and_counted_where_the_candidate_reads_them() -> None:
    context = {"text": "x" * INPUTS_BYTES_MAX}
    record = record_of(World(document_with("")), asked_with(context, {"plan": "pro"}))
    assert len(record.inputs or "") <= INPUTS_BYTES_MAX
    reading = World(document_with("context.text == 'a'")).policy
    other = World(document_with("actor.claims.plan == 'pro'")).policy
    assert replay([record], reading).inexact == 1
    assert replay([record], other).same == 1


def test_inputs_that_do_not_fit_even_without_values_are_unusable() -> None:
    document = document_with("")
    grants = tuple(Grant(f"{index:04}", "A", ToUser("u2")) for index in range(1_000))
    world = World(replace(document, grants=grants))
    records = [record_of(world, asked_with())]
    cut = [record for record in records if record.inputs == '{"cut":true}']
    assert replay(cut, world.policy).unusable == len(cut) == 1


def test_records_without_inputs_and_of_others_are_counted() -> None:
    world = World(document_with(""))
    record = record_of(world, asked_with())
    old = replace(record, inputs=None)
    records = [
        old,
        replace(old, reason=Reason.TOKEN_EXPIRED),
        replace(old, reported_by="sidecar", source=AnswerSource.CACHED),
        replace(old, query="ListAllowedActors"),
        replace(record, inputs='{"format": "of later"}'),
        replace(record, inputs="[]"),
        replace(record, occurrences=5),
    ]
    result = replay(records, world.policy)
    assert (result.without_inputs, result.before_rules, result.not_decided_here) == (1, 1, 2)
    assert (result.unusable, result.same, result.folded) == (2, 1, 4)


def test_a_record_without_inputs_has_the_bytes_that_it_always_had() -> None:
    record = replace(record_of(World(document_with("")), asked_with()), inputs=None)
    assert b"inputs" not in encode(record)
    assert decode(encode(record)) == record


def test_a_candidate_whose_condition_fails_or_is_too_expensive_denies() -> None:
    context = {"many": [str(index) for index in range(900)]}
    record = record_of(World(document_with("")), asked_with(context))
    assert record.effect is Effect.ALLOW
    nested = "context.many.exists(a, context.many.exists(b, a + b == 'x'))"
    for condition in ("context.absent == 1", "1 / 0 == 1", nested):
        result = replay([record], World(document_with(condition)).policy)
        assert result.flipped == 1
        ((key, flips),) = result.flips.items()
        assert key.effect is Effect.DENY
        assert len(flips.examples) == 1
