"""A written document reads back as the same."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.document import PolicyDocument, differences, parse_document, render_document
from pdp.document.timestamps import parse_time, render_time
from pdp.model import Effect, Role, Rule, User
from tests.kit import soak
from tests.kit.decision.policies import documents


@settings(deadline=None, max_examples=soak.count(100, sample=20))
@given(documents())
def test_a_rendered_document_parses_to_the_same(document: PolicyDocument):
    read = parse_document(render_document(document))
    assert differences(document, read) == differences(read, document) == []
    assert read == document
    assert render_document(read) == render_document(document)


@settings(deadline=None, max_examples=soak.count(30, sample=10))
@given(documents())
def test_an_old_yaml_reads_the_same_texts(document: PolicyDocument):
    """Text for us is text for other YAML tools."""
    tree = yaml.safe_load(render_document(document))
    assert [user["id"] for user in tree["users"]] == [one.id for one in document.users or ()]


def test_ids_that_follow_from_content_are_not_written():
    text = "permissions: [a:b]\nroles: {R: {allow: [{permission: a:b, when: 'true'}]}}\n"
    text += "grants: [{role: R, user: u}]\n"
    rendered = render_document(parse_document(text))
    assert "id:" not in rendered
    assert "g-" not in rendered


def test_an_id_of_ones_own_and_a_suffix_are_written():
    rules = (
        Rule("R.allow.*", "R", Effect.ALLOW, "*"),
        Rule("R.allow.*.2", "R", Effect.ALLOW, "*", description="again"),
    )
    document = PolicyDocument(roles=(Role("R"),), rules=rules)
    assert parse_document(render_document(document)) == document


def test_a_condition_of_several_lines_is_shown_as_it_is():
    condition = 'actor.id == "x"\n&& true'
    rules = (Rule("r", "R", Effect.ALLOW, "*", condition),)
    assert '  actor.id == "x"\n' in render_document(PolicyDocument(roles=(Role("R"),), rules=rules))


def test_true_and_one_are_different_attributes():
    """After OpenFGA CVE-2026-33729: `true == 1.0` in Python, and not here."""

    def users(value: object) -> PolicyDocument:
        return PolicyDocument(users=(User("u", attributes={"deep": [{"a": value}]}),))

    assert differences(users(True), users(1.0)) != []
    assert differences(users(False), users(0.0)) != []
    assert differences(users(1.0), users(1.0)) == []


KINDS_IN_ORDER = ("permission", "resource_type", "role", "rule", "grant", "route")


def test_changes_are_ordered_so_that_what_is_referred_to_is_there():
    empty = PolicyDocument((), (), (), (), (), (), (), (), (), ())
    wanted = parse_document(
        "permissions: [a:b]\nroles: {R: {allow: [a:b]}}\ngrants: [{role: R, user: u}]\n"
        "routes: {/a: a:b}\nresource_types: {a: {stored: required}}"
    )
    created = [
        (difference.action.value, difference.kind) for difference in differences(empty, wanted)
    ]
    assert created == [("create", kind) for kind in KINDS_IN_ORDER]
    gone = [(difference.action.value, difference.kind) for difference in differences(wanted, empty)]
    assert gone == [("delete", kind) for kind in reversed(KINDS_IN_ORDER)]


def test_a_section_that_is_left_out_is_left_alone():
    full = parse_document("permissions: [a:b]\nroles: {R: {}}\ngrants: [{role: R, user: u}]")
    assert differences(full, parse_document("permissions: [a:b]")) == []


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_000_000))
def test_times_read_back_as_they_were(microseconds: int):
    assert parse_time(render_time(microseconds / 1_000_000)) == microseconds / 1_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-01t00:00:00.25z", 0.25),
        ("1969-12-31T23:59:59.5Z", -0.5),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:00:00.9999999Z", 1.0),
    ],
)
def test_a_time_is_rfc_3339(text: str, seconds: float):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "2026-01-31", "2026-01-31T00:00:00", "2026-02-30T00:00:00Z", "2026-01-31T24:00:00Z",
     "2026-01-31T00:00:60Z", "2026-W01-1T00:00:00Z", "2026-01-31 00:00:00Z", "٢٠٢٦-01-31T00:00:00Z",
     "0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00", "2026-01-31T00:00:00+25:00",
     "10000-01-01T00:00:00Z", "2026-01-31T00:00:00Z\n"],
)  # fmt: skip
def test_other_times_are_refused(text: str):
    with pytest.raises(ValueError, match=r"must be|is not"):
        parse_time(text)
