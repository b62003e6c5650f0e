"""Tests ask what a part does, not what it holds: few of them read its private members."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ACCESSES = {
    "clients/python/tests/test_cache.py": 8,
    "tests/audit/test_verify_sql.py": 2,
    "tests/clerk/test_role_claims_push.py": 1,
    "tests/clerk/webhooks/test_batcher.py": 1,
    "tests/cli/running.py": 2,
    "tests/cli/test_policy.py": 1,
    "tests/decision/test_conditions.py": 1,
    "tests/decision/test_policy.py": 1,
    "tests/deploy/manifests.py": 1,
    "tests/facts/replica/test_barrier.py": 3,
    "tests/facts/replica/test_snapshot.py": 2,
    "tests/identity/test_verifier.py": 5,
    "tests/kit/decision/programs.py": 1,
}
"""How often each file reads a private member of something else. The list may only shrink."""


def accesses_in(root: Path, *folders: str) -> dict[str, int]:
    """How many accesses ruff finds (SLF001), by file."""
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "SLF001"]
    ran = subprocess.run(
        [*ruff, "--output-format", "json", *folders], cwd=root, capture_output=True, check=False
    )
    files = (Path(access["filename"]) for access in json.loads(ran.stdout))
    return Counter(file.relative_to(root).as_posix() for file in files)


MUTANTS = ("tests/kit/filters/mutants.py", "tests/kit/rls/mutants.py")
"""Replace parts of compilers by wrong ones: what they change is private."""


def test_no_further_private_member_is_read() -> None:
    found = accesses_in(ROOT, "tests", "clients/python/tests")
    assert {file: count for file, count in found.items() if file not in MUTANTS} == ACCESSES


def test_an_access_is_found(tmp_path: Path) -> None:
    """Positive control of the test above."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("import b\nassert b.value\nassert b._value\n")
    assert accesses_in(tmp_path, "tests") == {"tests/test_a.py": 1}
