"""The documents say what the contract says."""

import re
from pathlib import Path

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from pdpapi.v1.core_pb2 import DecisionReason
from pdpapi.v1.error_reason_pb2 import ErrorReason

from pdp.model import DenialKind, Reason
from pdp.wire.statuses import STATUSES

DOCS = Path(__file__).parents[1] / "docs"
ROW = re.compile(r"^\| ([A-Z_]+) \|", re.MULTILINE)
ADR_SECTIONS = ["## Status", "## Context", "## Decision", "## Consequences"]


def _section(text: str, heading: str) -> str:
    """The text under a heading, including its own sub-headings."""
    level = heading.index(" ")
    found = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, f"there is no heading {heading!r}"
    return found[1]


@pytest.mark.parametrize(
    ("heading", "enum", "prefix"),
    [
        ("## Decision reasons", DecisionReason, "DECISION_REASON_"),
        ("## Error reasons", ErrorReason, "ERROR_REASON_"),
    ],
)
def test_every_reason_of_the_contract_is_explained_once_and_in_order(
    heading: str, enum: EnumTypeWrapper, prefix: str
):
    documented = ROW.findall(_section((DOCS / "errors.md").read_text(), heading))
    named = [name.removeprefix(prefix) for name, number in enum.items() if number != 0]
    assert documented == named


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("### Allowed", None),
        ("### Denied: UNAUTHENTICATED (401)", DenialKind.UNAUTHENTICATED),
        ("### Denied: FORBIDDEN (403)", DenialKind.FORBIDDEN),
    ],
)
def test_every_decision_reason_is_listed_under_its_kind(heading: str, kind: DenialKind | None):
    documented = ROW.findall(_section((DOCS / "errors.md").read_text(), heading))
    assert documented == [reason.name for reason in Reason if reason.denial_kind is kind]


def test_every_error_reason_is_documented_with_its_status():
    section = _section((DOCS / "errors.md").read_text(), "## Error reasons")
    documented = dict(re.findall(r"^\| ([A-Z_]+) \| ([A-Z_]+) \|", section, re.MULTILINE))
    table = {
        ErrorReason.Name(reason).removeprefix("ERROR_REASON_"): code.name
        for code, reason in STATUSES.values()
    }
    assert documented == table | {"INTERNAL": "INTERNAL"}


@pytest.mark.parametrize("page", sorted((DOCS / "adr").glob("*.md")), ids=lambda page: page.stem)
def test_every_adr_has_its_sections_and_says_what_speaks_against_it(page: Path):
    text = page.read_text()
    assert re.match(rf"# {page.name[:4]}: \S", text)
    assert [line for line in text.splitlines() if line.startswith("## ")] == ADR_SECTIONS
    assert "- **Against:**" in _section(text, "## Consequences")


def test_adrs_are_numbered_without_gaps():
    numbers = [int(page.name[:4]) for page in sorted((DOCS / "adr").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
