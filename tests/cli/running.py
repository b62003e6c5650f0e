"""Runs a command line within the test's own process: many commands, and no interpreter to start."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pdp.cli import main, output


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


Run = Callable[..., Done]


def runner(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `pdp ARGUMENTS`; standard input is a pipe with the text `stdin`."""

    def run(*arguments: str, stdin: str = "") -> Done:
        import io

        monkeypatch.setattr(sys, "argv", ["pdp", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        output._out.cache_clear()
        output._err.cache_clear()
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run
