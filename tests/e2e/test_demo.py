"""README and quickstart show what `make demo` prints."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def comparable(text: str) -> list[str]:
    return [TIME.sub("(time)", line).rstrip() for line in text.strip().splitlines()]


@pytest.fixture(scope="module")
def printed() -> str:
    command = [sys.executable, "-m", "examples.demo"]
    for _ in range(3):
        done = subprocess.run(
            command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        # If the disk hangs, the guard asks again, and the log counts both at one record.
        if "  times\n" not in done.stdout:
            break
    return done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_a_page_shows_what_the_demo_prints(page: str, printed: str) -> None:
    shown = re.search(r"```\n\$ make demo\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert shown is not None
    assert comparable(shown[1]) == comparable(printed)
