"""Every policy that the documentation shows is one."""

import re
from pathlib import Path

import pytest

from pdp.document import differences, parse_document, render_document

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "policy.md").read_text(), re.DOTALL)


def test_the_language_is_described_with_examples():
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_of_the_description_is_a_policy(block: str):
    document = parse_document(block)
    assert differences(document, parse_document(render_document(document))) == []


def test_the_example_policy_is_one():
    document = parse_document((ROOT / "examples" / "courses.yaml").read_text())
    assert {rule.id for rule in document.rules or ()} >= {
        "ADMIN.allow.course:*",
        "STUDENT.allow.course:view",
    }
    assert parse_document(render_document(document)) == document
