"""What happens when something fails, as `tests/faults/faults.yaml` promises it.

The tests take time bounds, statuses and readiness from it, and `python -m tests.faults` writes the
page `docs/faults.md`, so that neither can say anything else:

    F2 = FAULTS["F2"]
    F2.seconds(staleness_seconds_max=1.5)   # the setting and 0.1 s more: 1.6
    F2.healed_within()                      # 2.0
    F2.expect(error)                        # a status and a reason that the entry names
"""

from collections.abc import Iterator
from pathlib import Path

import grpc
import yaml
from pydantic import BaseModel, ConfigDict

from tests.kit.wire.errors import reason_of_error

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "tests" / "faults" / "faults.yaml"
PAGE = ROOT / "docs" / "faults.md"
COLUMNS = ("id", "what fails", "what callers see", "at most", "readiness", "what heals it")

_HEAD = """\
# When something fails

<!-- `python -m tests.faults` writes this page from tests/faults/faults.yaml. -->

Each row is a promise. *At most* is how long callers can notice the fault. Ids are names, and have
gaps. The [tests](#tests) of each row are listed below. Those that wait for a time bound read it
from the source of this page.
"""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bound(_Strict):
    """A time, if it is known in seconds, and what it means."""

    setting: str = ""
    """The setting that it depends on."""
    seconds: float = 0
    """Added to the setting."""
    note: str = ""

    def __str__(self) -> str:
        terms = [f"`{self.setting}`"] if self.setting else []
        terms += [f"{self.seconds:g} s"] if self.seconds else []
        return ": ".join(part for part in (" + ".join(terms), self.note) if part)


class Fault(_Strict):
    """One fault."""

    id: str
    fails: str
    callers_see: str
    """Names each status of `errors` in braces: "writes are {UNAVAILABLE}"."""
    errors: dict[str, tuple[str, ...]] = {}
    """The gRPC statuses that callers see besides OK, and the reasons (ErrorInfo) of each."""
    at_most: Bound
    readiness: str
    """Begins with "green" if the process stays ready."""
    heals: str
    healed_within_seconds: float | None = None
    """How soon the process answers again, once `heals` has happened."""
    tests: tuple[str, ...]
    """Ids as pytest takes them, from the root of the project."""

    @property
    def seen(self) -> str:
        """What callers see, with the reasons of each status."""
        return self.callers_see.format_map(
            {status: _with_reasons(status, reasons) for status, reasons in self.errors.items()}
        )

    @property
    def codes(self) -> set[grpc.StatusCode]:
        """The gRPC statuses that callers see, besides OK."""
        return {grpc.StatusCode[status] for status in self.errors}

    @property
    def reasons(self) -> set[str]:
        """The reasons (ErrorInfo) that callers see."""
        return {reason for reasons in self.errors.values() for reason in reasons}

    @property
    def green(self) -> bool:
        """Whether the process stays ready."""
        return self.readiness.startswith("green")

    def seconds(self, **settings: float) -> float:
        """The bound, with this value of the setting that it names."""
        bound = self.at_most
        assert bound.setting or bound.seconds, f"{self.id} has no bound in seconds"
        return (settings[bound.setting] if bound.setting else 0) + bound.seconds

    def healed_within(self) -> float:
        """How soon the process answers again, once `heals` has happened."""
        assert self.healed_within_seconds is not None, f"{self.id} has no time to heal"
        return self.healed_within_seconds

    def expect(self, error: grpc.RpcError) -> None:
        """Fails the test if the entry does not name this status with this reason."""
        status, reason = error.code().name, reason_of_error(error)
        named = reason in self.errors.get(status, ())
        assert named, f"{self.id} does not name {status} {reason} {error.details()}"


def page(faults: dict[str, Fault]) -> str:
    """The page that shows all faults and their tests."""
    return "\n".join([_HEAD, *_table(faults), "", "## Tests", "", *_tests(faults)]) + "\n"


def _with_reasons(status: str, reasons: tuple[str, ...]) -> str:
    quoted = ", ".join(f"`{reason}`" for reason in reasons)
    return f"{status} ({quoted})" if quoted else status


def _table(faults: dict[str, Fault]) -> Iterator[str]:
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---" * len(COLUMNS) + "|"
    for fault in faults.values():
        within = fault.healed_within_seconds
        heals = fault.heals if within is None else f"{fault.heals}: within {within:g} s"
        cells = (fault.id, fault.fails, fault.seen, str(fault.at_most), fault.readiness, heals)
        yield f"| {' | '.join(cells)} |"


def _tests(faults: dict[str, Fault]) -> Iterator[str]:
    for fault in faults.values():
        yield f"- {fault.id}:"
        yield from (f"  - `{test}`" for test in fault.tests)


def _read() -> dict[str, Fault]:
    content = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    return {name: Fault(id=name, **fields) for name, fields in content.items()}


FAULTS = _read()
