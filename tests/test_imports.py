"""Tests share helpers through a kit, never through each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ("tests", "clients/python/tests")
KITS = tuple(f"{tests.replace('/', '.')}.kit" for tests in TESTS)


def imported_by(source: str) -> Iterator[str]:
    """The modules that a program imports, and the names that it imports from them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def faults_of(module: str, source: str) -> set[str]:
    """The imports of a module of the tests that break the rules:

    - a test module or a conftest, which pytest alone imports;
    - from a module of the kit: anything of the tests that is not in a kit;
    - from another module: a helper of another room.
    """
    room = module.rpartition(".")[0]
    faults = set()
    for name in imported_by(source):
        if not name.startswith(("tests.", "clients.python.tests.")):
            continue
        is_test = any(part == "conftest" or part.startswith("test_") for part in name.split("."))
        in_kit = any(f"{name}.".startswith(f"{kit}.") for kit in KITS)
        in_room = f"{name}.".startswith(f"{room}.") and not f"{module}.".startswith(KITS)
        if is_test or not (in_kit or in_room):
            faults.add(name)
    return faults


def modules() -> dict[str, Path]:
    """All modules of the tests, by name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for tests in TESTS
        for path in (ROOT / tests).rglob("*.py")
    }


def test_tests_import_helpers_from_a_kit_or_from_their_own_room() -> None:
    faults = {
        f"{module}: {name}"
        for module, path in modules().items()
        if (source := path.read_text(encoding="utf-8")) and "tests" in source
        for name in faults_of(module, source)
    }
    assert faults == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tests.e2e.test_a", "from tests.e2e.test_b import ask"),
        ("tests.e2e.test_a", "from tests.e2e.conftest import POLICY"),
        ("tests.e2e.test_a", "def f():\n    from tests.history.world import World"),
        ("tests.e2e.test_a", "from tests.history import world"),
        ("tests.kit.server", "from tests.e2e.rolling import Load"),
        ("tests.kit.wire.tls", "import tests.history.world"),
        ("clients.python.tests.test_a", "from clients.python.tests.test_b import ask"),
    ],
)
def test_an_import_from_another_test_is_found(module: str, source: str) -> None:
    assert faults_of(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tests.e2e.test_a", "from tests.kit.server import Stubs"),
        ("tests.e2e.test_a", "from tests.kit import soak"),
        ("tests.history.test_a", "from tests.history import world"),
        ("tests.history.test_a", "from tests.history.world import World"),
        ("tests.kit.wire.tls", "from tests.kit.wire.errors import error_info"),
        ("clients.python.tests.test_a", "from clients.python.tests.kit.names import A"),
        ("clients.python.tests.test_a", "from tests.kit.waiting import eventually"),
    ],
)
def test_a_helper_of_a_kit_or_of_the_room_may_be_imported(module: str, source: str) -> None:
    assert not faults_of(module, source)
