"""Canonical bytes and ids of decision records."""

import json
import re
import timeit
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.audit import (
    AnswerSource,
    DecisionRecord,
    MalformedRecordError,
    decode,
    encode,
    new_decision_id,
)
from pdp.audit.records import encode_with_key, new_salts
from pdp.model import Actor, Effect, Reason, ResourceRef
from tests.kit.audit.records import decision_record

texts = st.text(st.characters(), max_size=20)  # surrogates and NUL included
optional = st.none() | texts
records = st.builds(
    DecisionRecord,
    decision_id=st.just("01920000-0000-7000-8000-000000000000"),
    decided_at=st.floats(allow_nan=False, allow_infinity=False),
    effect=st.sampled_from(Effect),
    reason=st.sampled_from(Reason),
    permission=texts,
    caller=texts,
    revision=st.integers(0, 2**63 - 1),
    token_fingerprint=texts,
    actor=st.none() | st.builds(Actor, texts, texts, optional, optional),
    token_id=optional,
    resource=st.none() | st.builds(ResourceRef, texts, texts),
    resource_organization_id=optional,
    rule_id=optional,
    grant_id=optional,
    source=st.sampled_from(AnswerSource),
    request=optional,
    query=optional,
)


salts = st.just("") | st.builds(lambda: next(new_salts()))


@given(records, salts)
def test_a_record_reads_back_as_it_was_written(record: DecisionRecord, salt: str) -> None:
    assert decode(encode(record, salt)) == record


@given(records, salts)
def test_bytes_are_canonical_json_on_one_line_of_ascii(record: DecisionRecord, salt: str) -> None:
    payload = encode(record, salt)
    again = json.dumps(json.loads(payload), sort_keys=True, separators=(",", ":"))
    assert payload == again.encode("ascii")
    assert len(payload.splitlines()) == 1


@given(records)
def test_equal_decisions_fold_whatever_their_salts(record: DecisionRecord) -> None:
    plain, key = encode_with_key(record)
    salted, other = encode_with_key(record, next(new_salts()))
    assert key == other
    assert plain != salted


@pytest.mark.parametrize(
    "value",
    [
        "a\nb",
        "a\r\n{}",
        "\x1b[31mred",
        '","effect":"ALLOW","x":"',
        "\u2028\u2029\x85",
        "\0",
        "}\n{",
    ],
)
def test_what_an_id_holds_cannot_begin_another_record(value: str) -> None:
    """Envoy-gateway CVE-2025-25294 (log injection)."""
    record = decision_record(
        permission=value,
        caller=value,
        resource=ResourceRef(value, value),
        actor=Actor(value, value, value, value),
        rule_id=value,
    )
    payload = encode(record)
    assert len(payload.decode("ascii").splitlines()) == 1
    assert not any(byte < 0x20 for byte in payload)
    assert decode(payload) == record
    assert json.loads(payload)["effect"] == "DENY"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"decision_id":1}',
        encode(decision_record()).replace(b'"DENY"', b'"MAYBE"'),
        encode(decision_record()).replace(b'"revision":7', b'"revision":1e999'),
        encode(decision_record()).replace(b'"user_id":"user_1"', b'"user_id":["user_1"]'),
    ],
)
def test_other_bytes_are_refused_as_malformed(payload: bytes) -> None:
    """Rekor CVE-2026-23831 (a nil entry panics the reader)."""
    with pytest.raises(MalformedRecordError):
        decode(payload)


def test_what_was_decided_has_the_bytes_that_it_always_had() -> None:
    """Only records of a sidecar have a source; no record names its own reporter."""
    plain = decision_record()
    assert b'"source"' not in encode(plain)
    for source in (AnswerSource.CACHED, AnswerSource.STAYED_OPEN):
        record = replace(plain, source=source)
        payload = encode(record)
        assert list(json.loads(payload)) == sorted(json.loads(payload))
        assert json.loads(payload)["source"] == source.name
        assert decode(payload) == record
        assert encode(replace(record, reported_by="edge")) == payload
    with pytest.raises(MalformedRecordError):
        decode(payload.replace(b'"STAYED_OPEN"', b'"DREAMT"'))


@pytest.mark.parametrize("decided_at", [float("nan"), float("inf")])
def test_a_time_that_is_not_finite_is_refused(decided_at: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        encode(decision_record(decided_at=decided_at))


def test_ids_made_later_sort_later() -> None:
    ids = [new_decision_id() for _ in range(10_000)]
    assert ids == sorted(set(ids))
    assert ids[0][14] == "7"


def test_an_id_costs_microseconds_at_most() -> None:
    seconds = min(timeit.repeat(new_decision_id, number=10_000, repeat=5))
    assert seconds / 10_000 < 10e-6  # measured: 0.4; the bound leaves room for a busy machine


def test_each_record_of_a_batch_has_128_random_bits_of_its_own() -> None:
    salts = list(islice(new_salts(), 1_000))
    assert len(set(salts)) == 1_000
    assert all(re.fullmatch("[0-9a-f]{32}", salt) for salt in salts)
