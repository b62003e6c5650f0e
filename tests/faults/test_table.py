"""The faults, their page and their tests agree."""

import ast
import re
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from pdpapi.v1.error_reason_pb2 import ErrorReason

from pdp.settings import ClerkSettings, Settings
from tests.kit.faults.table import FAULTS, PAGE, ROOT, Bound, Fault, page

HERE = Path(__file__)
PLACES = ("tests", "clients/python/tests")
_ID = re.compile(r"\bF\d{1,2}\b")


def names_in(file: Path) -> set[str]:
    """The tests of a file, as pytest takes them."""
    found = []
    for node in ast.parse(file.read_text()).body:
        parts = node.body if isinstance(node, ast.ClassDef) else [node]
        within = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found += [f"{within}{part.name}" for part in parts if isinstance(part, ast.FunctionDef)]
    name = file.relative_to(ROOT).as_posix()
    return {f"{name}::{item}" for item in found if item.rpartition("::")[2].startswith("test_")}


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


def test_every_fault_that_a_test_mentions_is_in_the_table() -> None:
    mentioned = {
        (found, file.name)
        for place in PLACES
        for file in (ROOT / place).rglob("*.py")
        for found in _ID.findall(file.read_text())
    }
    assert {(found, name) for found, name in mentioned if found not in FAULTS} == set()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_every_fault_names_statuses_reasons_and_settings_that_exist(fault: Fault) -> None:
    assert set(re.findall(r"{(\w+)}", fault.callers_see)) == set(fault.errors)
    assert fault.codes <= set(grpc.StatusCode)
    assert {f"ERROR_REASON_{reason}" for reason in fault.reasons} <= set(ErrorReason.keys())
    assert {fault.at_most.setting} <= {"", *Settings.model_fields, *ClerkSettings.model_fields}
    assert str(fault.at_most)


def test_the_page_of_faults_is_what_the_tests_hold() -> None:
    """Changed on purpose? `python -m tests.faults` writes the page again."""
    assert PAGE.read_text(encoding="utf-8") == page(FAULTS)


class _Raised(grpc.RpcError):
    """An error as gRPC raises it for a status with this reason."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        self._code = code
        self._status = status_pb2.Status(code=code.value[0])
        self._status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason))

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._status.message

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return (("grpc-status-details-bin", self._status.SerializeToString()),)


def test_a_fault_accepts_an_error_only_with_the_status_that_it_names_for_the_reason() -> None:
    fault = Fault(
        id="any",
        fails="",
        callers_see="{UNAVAILABLE}, {ABORTED}",
        errors={"UNAVAILABLE": ("FACTS_STALE",), "ABORTED": ("REVISION_CHANGED",)},
        at_most=Bound(),
        readiness="green",
        heals="",
        tests=(),
    )
    fault.expect(_Raised(grpc.StatusCode.UNAVAILABLE, "FACTS_STALE"))
    for status, reason in (("UNAVAILABLE", "REVISION_CHANGED"), ("INTERNAL", "FACTS_STALE")):
        with pytest.raises(AssertionError, match=f"does not name {status} {reason}"):
            fault.expect(_Raised(grpc.StatusCode[status], reason))
