"""Each format is valid by its published rules, and no text of a record escapes from its field."""

import functools
import json
import re
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from pdpapi.v1 import core_pb2
from pdpapi.v1.audit_service_pb2 import AdministrationRecord, DecisionRecord

from pdp.siem import cef, ecs, ocsf
from pdp.siem.events import TEXT_CHARACTERS_MAX, change_event, decision_event
from pdp.siem.formats import FORMATS
from tests.kit.siem.records import HOSTILE, hostile, record

DECISIONS = [
    record(),
    DecisionRecord(),
    record(
        decision=core_pb2.DECISION_ALLOW,
        reason=core_pb2.DECISION_REASON_ALLOWED_BY_RULE,
        rule_id="r1",
        grant_id="g1",
        token_id="jti",
        request="GET /courses/1",
    ),
    record(occurrences=9, last_decided_at=Timestamp(seconds=1_796_040_009)),
    record(source=core_pb2.ANSWER_SOURCE_CACHED, reported_by="sidecar-1"),
    record(query="ListAllowedResources", permission="course:*"),
    *map(hostile, HOSTILE),
    hostile("x" * 20_000),
]
TEXTS = st.sampled_from(HOSTILE) | st.text(min_size=1, max_size=40)


@functools.cache
def validator(class_uid: int) -> Draft202012Validator:
    """The published schema of a class; it allows no fields that it does not name."""
    schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=ocsf.VERSION))
    name = schemas.lookup_class_name_from_uid(class_uid=class_uid)
    return Draft202012Validator(
        schemas.get_class_schema(class_name=name, profiles=["security_control"])
    )


def problems(event: dict[str, Any]) -> list[str]:
    return [error.message for error in validator(event["class_uid"]).iter_errors(event)]


def cef_fields(line: str) -> tuple[list[str], dict[str, str]]:
    """Header and extension, parsed strictly by the rules of CEF."""
    assert len(line.splitlines()) == 1
    header = re.match(r"((?:[^\\|]|\\[\\|])*\|){7}", line)
    assert header is not None, line
    parts = re.findall(r"((?:[^\\|]|\\[\\|])*)\|", header[0])
    extension = line[header.end() :]
    pairs = re.findall(r"(?:^| )(\w+)=((?:[^\\=]|\\[\\=nr])*)(?= \w+=|$)", extension)
    assert "".join(f" {key}={value}" for key, value in pairs)[1:] == extension, extension
    assert len(dict(pairs)) == len(pairs)
    replaced = {"\\\\": "\\", "\\=": "=", "\\n": "\n", "\\r": "\r"}
    return parts, {
        key: re.sub(r"\\[\\=nr]", lambda found: replaced[found[0]], value) for key, value in pairs
    }


@pytest.mark.parametrize("decision", DECISIONS, ids=range(len(DECISIONS)))
def test_a_decision_is_api_activity_by_the_published_schema(decision: DecisionRecord) -> None:
    event = json.loads(FORMATS["ocsf"]["decision"](decision, TEXT_CHARACTERS_MAX))
    assert event["class_uid"] == 6003
    assert problems(event) == []


def test_the_schema_refuses_what_is_not_api_activity() -> None:
    event = json.loads(FORMATS["ocsf"]["decision"](record(), TEXT_CHARACTERS_MAX))
    assert problems({**event, "rule": "x"})
    assert problems({name: value for name, value in event.items() if name != "actor"})
    assert problems({**event, "action_id": 17})


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", FORMATS)
def test_a_record_is_one_line_whatever_its_texts_are(name: Any, text: str) -> None:
    line = FORMATS[name]["decision"](hostile(text), TEXT_CHARACTERS_MAX)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert line.encode().decode() == line


@given(TEXTS)
def test_the_texts_of_a_record_come_out_of_json_unchanged(text: str) -> None:
    ours = decision_event(hostile(text))
    event = json.loads(ocsf.decision_line(ours))
    assert event["api"]["operation"] == event["actor"]["user"]["uid"] == text
    assert event["unmapped"].get("impersonator_id", "") == text
    document = json.loads(ecs.decision_line(ours))
    assert document["pdp"].get("permission", "") == document.get("rule", {}).get("id", "") == text
    assert document["event"]["type"] == ["access", "denied"]


@given(TEXTS)
def test_no_text_adds_a_field_to_cef_or_changes_another(text: str) -> None:
    plain = cef_fields(FORMATS["cef"]["decision"](hostile("x"), TEXT_CHARACTERS_MAX))
    header, fields = cef_fields(FORMATS["cef"]["decision"](hostile(text), TEXT_CHARACTERS_MAX))
    assert header == plain[0]
    assert set(fields) <= set(plain[1])
    assert (fields["act"], fields["outcome"], fields["rt"]) == ("denied", "failure", plain[1]["rt"])
    if text.isascii() and text.isprintable():
        assert fields.get("cs1", "") == text


@given(TEXTS)
def test_no_text_adds_a_part_to_the_header_of_cef(text: str) -> None:
    event = change_event(administration_record(kind=text))
    header, _ = cef_fields(cef.change_line(event))
    assert len(header) == 7
    if text.isascii() and text.isprintable():
        assert header[4].replace("\\|", "|").replace("\\\\", "\\") == f"{text}.create"


def test_long_texts_are_cut_and_marked() -> None:
    event = json.loads(FORMATS["ocsf"]["decision"](hostile("x" * 20_000), TEXT_CHARACTERS_MAX))
    assert event["metadata"]["is_truncated"] is True
    assert event["api"]["operation"] == "x" * TEXT_CHARACTERS_MAX
    assert len(json.dumps(event)) < 32 * TEXT_CHARACTERS_MAX
    assert (
        "is_truncated" not in json.loads(ocsf.decision_line(decision_event(record())))["metadata"]
    )


def test_a_reason_of_a_newer_server_is_a_number() -> None:
    event = decision_event(record(reason=9_999))
    assert (event.code, event.detail) == ("9999", "9999")
    assert problems(json.loads(ocsf.decision_line(event))) == []


def test_a_folded_denial_has_its_count_and_its_end() -> None:
    folded = record(occurrences=9, last_decided_at=Timestamp(seconds=1_796_040_009))
    event = json.loads(FORMATS["ocsf"]["decision"](folded, TEXT_CHARACTERS_MAX))
    assert (event["count"], event["end_time"]) == (9, 1_796_040_009_000)
    document = json.loads(FORMATS["ecs"]["decision"](folded, TEXT_CHARACTERS_MAX))
    assert document["event"]["end"] == "2026-11-30T12:00:09.000Z"
    assert cef_fields(FORMATS["cef"]["decision"](folded, 64))[1]["cnt"] == "9"


@pytest.mark.parametrize(
    ("seconds", "year"),
    [(-(1 << 62), "0001"), (-62_135_596_800, "0001"), (253_402_300_799, "9999"), (1 << 62, "9999")],
)
def test_a_time_that_no_calendar_has_does_not_stop_the_feed(seconds: int, year: str) -> None:
    odd = DecisionRecord()
    odd.CopyFrom(record())
    odd.decided_at.seconds = seconds
    document = json.loads(FORMATS["ecs"]["decision"](odd, 64))
    assert re.fullmatch(year + r"-\d\d-\d\dT\d\d:\d\d:\d\d\.500Z", document["@timestamp"])
    for name in ("ocsf", "cef"):
        assert FORMATS[name]["decision"](odd, 64)
    fields = json.loads(FORMATS["json"]["decision"](odd, 64))
    plain = json.loads(FORMATS["json"]["decision"](record(), 64))
    if abs(seconds) == 1 << 62:
        # Nothing is lost: the other fields, and the time as it is.
        time = {"seconds": str(seconds), "nanos": odd.decided_at.nanos}
        assert fields.pop("times_out_of_range") == {"decided_at": time}
        del plain["decided_at"]
    else:
        plain["decided_at"] = odd.decided_at.ToJsonString()
    assert fields == plain


# --- changes ------------------------------------------------------------------------------------


def administration_record(**fields: Any) -> AdministrationRecord:
    values = {
        "epoch": "9f3c",
        "revision": 12,
        "recorded_at": "2026-11-30T12:00:00.5Z",
        "source": "CHANGE_SOURCE_API",
        "caller": "courses",
        "reason": "OPS-12",
        "kind": "role",
        "key": ["READER"],
        "after": {"name": "READER", "inherits": []},
        **fields,
    }
    present = {name: value for name, value in values.items() if value is not None}
    return ParseDict(present, AdministrationRecord())


GRANT = {"id": "g1", "role": "READER", "user_id": "user_1"}


@pytest.mark.parametrize(
    ("change", "class_uid", "activity"),
    [
        ({}, 3004, 1),
        ({"before": {"name": "READER"}}, 3004, 3),
        ({"before": {"name": "READER"}, "after": None}, 3004, 4),
        ({"kind": "grant", "key": ["g1"], "after": GRANT}, 3005, 1),
        ({"kind": "grant", "key": ["g1"], "before": GRANT, "after": None}, 3005, 2),
        ({"kind": "grant", "key": ["g1"], "before": GRANT, "after": GRANT}, 3005, 99),
        ({"kind": "grant", "after": {"organization_role": "org:member", "role": "A"}}, 3004, 1),
        ({"kind": "user", "caller": "", "source": "CHANGE_SOURCE_CLERK_SYNC"}, 3004, 1),
        *(
            ({"caller": text, "reason": text, "kind": text, "key": [text]}, 3004, 1)
            for text in HOSTILE
        ),
        ({"after": {"attributes": {"note": "x" * 50_000}}}, 3004, 1),
    ],
)
def test_a_change_is_entity_or_access_management_by_the_published_schema(
    change: dict[str, Any], class_uid: int, activity: int
) -> None:
    made = administration_record(**change)
    event = json.loads(FORMATS["ocsf"]["change"](made, TEXT_CHARACTERS_MAX))
    assert (event["class_uid"], event["activity_id"]) == (class_uid, activity)
    assert problems(event) == []
    for name in FORMATS:
        assert len(FORMATS[name]["change"](made, TEXT_CHARACTERS_MAX).splitlines()) == 1


def test_a_grant_to_a_user_names_user_and_role() -> None:
    made = administration_record(kind="grant", key=["g1"], after=GRANT)
    event = json.loads(FORMATS["ocsf"]["change"](made, TEXT_CHARACTERS_MAX))
    assert (event["user"], event["privileges"]) == ({"uid": "user_1"}, ["READER"])
    document = json.loads(FORMATS["ecs"]["change"](made, TEXT_CHARACTERS_MAX))
    assert document["event"]["type"] == ["user", "creation"]
    assert document["user"] == {"name": "courses", "target": {"id": "user_1"}}
