"""The table of faults and the tests hold together."""

import ast
import re
from pathlib import Path

import pytest

from pdp.settings import ClerkSettings, Settings
from tests.kit.faults.table import FAULTS, ROOT, Fault

HERE = Path(__file__)
PLACES = ("tests", "clients/python/tests")
_ID = re.compile(r"\bF\d{1,2}\b")


def names_in(file: Path) -> set[str]:
    """The tests of a file, as pytest takes them."""
    found = []
    for node in ast.parse(file.read_text()).body:
        parts = node.body if isinstance(node, ast.ClassDef) else [node]
        within = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found += [f"{within}{one.name}" for one in parts if isinstance(one, ast.FunctionDef)]
    name = file.relative_to(ROOT).as_posix()
    return {f"{name}::{one}" for one in found if one.rpartition("::")[2].startswith("test_")}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_every_fault_names_tests_that_there_are(fault: Fault) -> None:
    assert fault.tests
    for test in fault.tests:
        file = ROOT / test.partition("::")[0]
        assert file.exists(), test
        assert test in names_in(file), test


def test_every_test_of_a_fault_has_a_row() -> None:
    named = {test for fault in FAULTS.values() for test in fault.tests}
    ours = {test for file in HERE.parent.glob("test_*.py") for test in names_in(file)}
    assert ours - names_in(HERE) - named == set()


def test_every_fault_that_a_test_speaks_of_is_in_the_table() -> None:
    spoken = {
        (found, file.name)
        for place in PLACES
        for file in (ROOT / place).rglob("*.py")
        for found in _ID.findall(file.read_text())
    }
    assert {(found, name) for found, name in spoken if found not in FAULTS} == set()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_every_fault_says_its_reasons_its_readiness_and_settings_that_there_are(
    fault: Fault,
) -> None:
    capitals = set(re.findall(r"`([A-Z_]{8,})`", fault.seen))
    assert capitals == fault.reasons
    assert bool(fault.codes) or not fault.reasons
    assert fault.fails
    assert fault.heals
    assert fault.readiness
    settings = set(re.findall(r"`([a-z_]+_seconds(?:_max)?)`", fault.bound))
    assert settings <= {*Settings.model_fields, *ClerkSettings.model_fields}
