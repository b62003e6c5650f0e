"""The transcripts of the page about the command line are what is printed."""

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.running import Run
from tests.kit.server import ServerProcess

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
VARYING = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|\+00:00)", "TIME"),
    (r"revision \d+", "revision N"),
    (r"\b\d+ s\b|\(\d\.\d\d s\)", "SECONDS"),
    (r"until TIME: g-[0-9a-f]{16}", "until TIME: GRANT"),
    (r"fingerprint [0-9a-f]{16}", "fingerprint F"),
    (r"127\.0\.0\.1:\d+", "SERVER"),
    (r" +$", ""),
)
SETTINGS = """
[[issuers]]
issuer = "http://localhost/pdp-development"
public_key_file = "development.pem.pub"
"""


def same(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_each_command_prints_what_the_page_shows(
    server: ServerProcess, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: str
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PDP_SERVER", server.environment["PDP_SERVER"])
    if "inspect" in block:
        Path("pdp.toml").write_text(SETTINGS)
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    assert commands
    for line, shown in commands:
        out = ""
        for command in line.split(" | "):
            name, *arguments = shlex.split(command)
            assert name == "pdp"
            done = run(*arguments, stdin=out)
            assert done.status == 0, done
            out = done.out
        assert same(out) == same(shown)


def test_the_measure_sees_a_difference() -> None:
    assert len(BLOCKS) == 5
    assert same("user_sam is active from revision 5 on") == same(
        "user_sam is active from revision 7 on"
    )
    assert same("user_sam is active from revision 5 on") != same(
        "user_sam is disabled from revision 5 on"
    )


def test_every_command_of_the_program_is_on_the_page(run: Run) -> None:
    listed = re.findall(r"^  ([a-z]+) ", run("--help").out.partition("Commands:")[2], re.MULTILINE)
    assert len(listed) > 20
    table = PAGE.read_text().partition("| commands |")[2].partition("\n\n")[0]
    named = {word for cell in re.findall(r"`([^`]*)`", table) for word in cell.split()}
    assert set(listed) <= named
