"""`build/bench.json`: the figures of each part, written as they come."""

import json
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Record:
    """The file. Parts that are not measured in this run keep the figures of an earlier one."""

    def __init__(self, file: Path, parts: Iterable[str], *, quick: bool) -> None:
        """Removes what an earlier run says of these parts."""
        self._file = file
        self._quick = quick
        self.content = read(file)
        for name in parts:
            self.content["parts"].pop(name, None)
            self.content["failed"].pop(name, None)
        self.content["left_out"] = {}
        self._write()

    def add(self, part: str, figures: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        """Writes what a part has measured."""
        self.content["parts"][part] = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "quick": self._quick,
            "processor": _processor(),
            "versions": {"python": platform.python_version(), "h2corn": version("h2corn")}
            | dict(versions),
            **figures,
        }
        self._write()

    def fail(self, part: str, reason: str) -> None:
        """Writes why there are no figures."""
        self.content["failed"][part] = reason
        self._write()

    def leave_out(self, left_out: Mapping[str, str]) -> None:
        """Writes what was left out, and why."""
        self.content["left_out"] = dict(left_out)
        self._write()

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(self.content, indent=2) + "\n")
        partial.replace(self._file)


def read(file: Path) -> dict[str, Any]:
    """The content of the file; of one that is missing or of another shape, nothing."""
    content = json.loads(file.read_text()) if file.exists() else {}
    if "parts" not in content:
        return {"parts": {}, "failed": {}, "left_out": {}}
    return dict(content)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.processor()
