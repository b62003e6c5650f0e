"""The table of `docs/operations.md`, "When something fails": what the tests hold the service to.

The tests take bounds, statuses and readiness from it, so that the document cannot say anything else
than what happens:

    F2 = FAULTS["F2"]
    F2.seconds(staleness_seconds_max=1.5)   # "`staleness_seconds_max` + 0.1 s" -> 1.6
    F2.healed_within()                      # "... within 2 s" -> 2.0
    F2.expect(error)                        # a status and a reason that the row names
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
from pdpapi.v1.error_reason_pb2 import ErrorReason

from tests.kit.wire.errors import reason_of_error

ROOT = Path(__file__).parents[3]
HEADING = "When something fails"
COLUMNS = ["id", "what fails", "what callers see", "at most", "readiness", "what heals it", "test"]

_TERM = r"(?:`[a-z_]+`|[0-9.]+ s)"
_SUM = re.compile(rf"{_TERM}(?: \+ {_TERM})*")
_REASONS = {name.removeprefix("ERROR_REASON_") for name, _ in ErrorReason.items()}


@dataclass(frozen=True)
class Fault:
    """One row."""

    id: str
    fails: str
    seen: str
    bound: str
    readiness: str
    heals: str
    tests: tuple[str, ...]
    """Ids as pytest takes them, from the root of the project."""

    @property
    def codes(self) -> set[grpc.StatusCode]:
        """The gRPC statuses that callers see, besides OK."""
        return {code for code in grpc.StatusCode if re.search(rf"\b{code.name}\b", self.seen)}

    @property
    def reasons(self) -> set[str]:
        """The reasons (ErrorInfo) that callers see."""
        return {name for name in _REASONS if f"`{name}`" in self.seen}

    @property
    def green(self) -> bool:
        """Whether the process stays ready."""
        return self.readiness.startswith("green")

    def seconds(self, **settings: float) -> float:
        """The bound, with these values of the settings that it names."""
        found = _SUM.match(self.bound)
        assert found, f"{self.id}: {self.bound!r} begins with no bound"
        return _total(found[0], settings)

    def healed_within(self, **settings: float) -> float:
        """In what time it answers again, once what heals it has happened."""
        found = re.search(f"within ({_SUM.pattern})", self.heals)
        assert found, f"{self.id}: {self.heals!r} says no time"
        return _total(found[1], settings)

    def expect(self, error: grpc.RpcError) -> None:
        """Fails where the row does not name this status, or not this reason."""
        said = f"{error.code().name} {reason_of_error(error)} {error.details()}"
        assert error.code() in self.codes, f"{self.id} does not name {said}"
        assert reason_of_error(error) in self.reasons, f"{self.id} does not name {said}"


def _total(terms: str, settings: Mapping[str, float]) -> float:
    return sum(
        settings[term.strip("`")] if term.startswith("`") else float(term.removesuffix(" s"))
        for term in terms.split(" + ")
    )


def _read() -> dict[str, Fault]:
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.partition(f"\n## {HEADING}\n")[2].partition("\n## ")[0]
    found: dict[str, Fault] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells or not re.fullmatch(r"F\d+", cells[0]):
            assert not cells or cells == COLUMNS or set(line) <= set("|-"), line
            continue
        assert len(cells) == len(COLUMNS), line
        assert cells[0] not in found, f"{cells[0]} stands there twice"
        tests = tuple(re.findall(r"`([^`]+::[^`]+)`", cells[-1]))
        found[cells[0]] = Fault(*cells[:-1], tests=tests)
    return found


FAULTS = _read()
