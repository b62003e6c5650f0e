"""`pdp test`: policy tests, offline."""

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pdp.cli.output import fail, note, read_document, say, say_marked

if TYPE_CHECKING:
    from pdp.document import Coverage, Outcome, TestFile

_PATTERN: Final = "*_test.yaml"
_WATCH_SECONDS: Final = 0.5
_SKIPPED: Final = ("node_modules", "__pycache__")


@dataclass(slots=True)
class _Ran:
    """What came of one file."""

    name: str
    file: "TestFile"
    outcomes: "list[Outcome]"
    coverage: "Coverage | None"
    seconds: float


def run(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help=f"Files of tests, or directories with {_PATTERN}. None: this one."),
    ] = None,
    coverage: Annotated[
        bool,
        typer.Option(
            "--coverage", help="Also print what no test decides: rules, grants, branches."
        ),
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Also write the results as JUnit XML.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain/--no-explain", help="Explain failed tests.")
    ] = True,
    watch: Annotated[
        bool, typer.Option("--watch", help="Run again when a file changes, until Ctrl-C.")
    ] = False,
) -> None:
    """Runs policy tests, without a server or a database.

    Exit status: 0 all passed, 1 some failed, 2 a file cannot be read or there are no tests.
    """
    if not watch:
        # What is read is needed until the end, so to look for garbage only takes time: a third.
        gc.disable()
        try:
            status = _run(files, coverage=coverage, junit=junit, explain=explain)
        finally:
            gc.enable()
        raise typer.Exit(status)
    while True:
        read: dict[Path, int] = {}
        try:
            _run(files, coverage=coverage, junit=junit, explain=explain, read=read)
        except (OSError, ValueError) as error:
            fail(str(error))
        note(f"watches {len(read)} files; end it with Ctrl-C")
        while all(_changed_at(file) == at for file, at in read.items()):
            time.sleep(_WATCH_SECONDS)


def _changed_at(file: Path) -> int:
    """Time of the last change, in nanoseconds; 0: the file does not exist."""
    return file.stat().st_mtime_ns if file.exists() else 0


def _run(
    files: list[Path] | None,
    *,
    coverage: bool,
    junit: Path | None,
    explain: bool,
    read: dict[Path, int] | None = None,
) -> int:
    """Runs all files. Returns the exit status; adds to `read` the files that count, each with the
    time of its last change before it was read: a later change is not missed."""
    from pdp.errors import InvalidPolicy

    now = _now()
    ran: list[_Ran] = []
    broken = False
    for path in _found(files):
        try:
            result = _run_file(path, now, coverage=coverage, read=read if read is not None else {})
        except InvalidPolicy as error:
            broken = True
            for violation in error.violations:
                fail(violation.located(str(path)))
            continue
        ran.append(result)
        for outcome in result.outcomes:
            if outcome.differences:
                _show_failure(result, outcome, now, explain=explain)
    if junit is not None:
        _write_junit(junit, ran)
    if coverage:
        _show_coverage(ran)
    failed = sum(bool(outcome.differences) for result in ran for outcome in result.outcomes)
    count = sum(len(result.outcomes) for result in ran)
    seconds = sum(result.seconds for result in ran)
    say(f"{count - failed} passed, {failed} failed in {len(ran)} files ({seconds:.2f} s)")
    if broken:
        return 2
    return 1 if failed else 0


def _now() -> float:
    from pdp.clock import wall_clock

    return wall_clock()


def _found(files: list[Path] | None) -> Iterator[Path]:
    """The files to run. Raises ValueError if there are none."""
    found: list[Path] = []
    for path in files or [Path()]:
        if path.is_dir():
            found += sorted(
                below
                for below in path.rglob(_PATTERN)
                if not any(part.startswith(".") or part in _SKIPPED for part in below.parts[:-1])
            )
        else:
            found.append(path)
    if not found:
        raise ValueError(f"there are no files of tests: name some, or call them {_PATTERN}")
    yield from dict.fromkeys(found)


def _run_file(path: Path, now: float, *, coverage: bool, read: dict[Path, int]) -> _Ran:
    from pdp.document import Coverage, parse_tests, run_tests
    from pdp.errors import InvalidPolicy, Violation

    def read_policy(name: str) -> str:
        policy = path.parent / name
        read[policy] = _changed_at(policy)
        return read_document(policy)

    read[path] = _changed_at(path)
    began = time.perf_counter()
    try:
        file = parse_tests(read_document(path), read_policy)
    except FileNotFoundError as error:
        if error.filename == str(path):
            raise
        text = f"there is no file {error.filename}"
        raise InvalidPolicy(Violation("given.policy", text)) from None
    counted = Coverage() if coverage else None
    outcomes = list(run_tests(file, now, counted))
    return _Ran(str(path), file, outcomes, counted, time.perf_counter() - began)


def _show_failure(ran: _Ran, outcome: "Outcome", now: float, *, explain: bool) -> None:
    from pdp.cli.tree import tree_lines
    from pdp.document import explain_test

    test = outcome.test
    say_marked("FAIL", "red", f"{ran.name}:{test.line} {test.name}")
    for field, wanted, found in outcome.differences:
        say(f"  - {field}: {_shown(wanted)}")
        say(f"  + {field}: {_shown(found)}")
    if explain:
        for line in tree_lines(explain_test(ran.file, test, now).tree):
            say(f"    {line}")


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _show_coverage(ran: list[_Ran]) -> None:
    for result in ran:
        if result.coverage is None:
            continue
        counts, gaps = result.coverage.gaps(result.file.document)
        parts = (f"{done} of {total} {name}" for name, (done, total) in counts.items())
        say(f"{result.name}: its tests decide {', '.join(parts)}")
        for gap in gaps:
            place = f" (line {gap.line} of the policy)" if gap.line is not None else ""
            say(f"  {gap.text}{place}")


def _write_junit(path: Path, ran: list[_Ran]) -> None:
    """JUnit XML, as the CI systems read it (there is no standard; these are the common fields)."""
    from xml.etree import ElementTree

    root = ElementTree.Element("testsuites")
    for result in ran:
        failed = sum(bool(outcome.differences) for outcome in result.outcomes)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_xml(result.name),
            tests=str(len(result.outcomes)),
            failures=str(failed),
            errors="0",
            time=f"{result.seconds:.3f}",
        )
        for outcome in result.outcomes:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=_xml(result.name),
                name=_xml(outcome.test.name),
                file=_xml(result.name),
                line=str(outcome.test.line),
            )
            if outcome.differences:
                lines = [
                    f"{field}: wanted {_shown(wanted)}, found {_shown(found)}"
                    for field, wanted, found in outcome.differences
                ]
                failure = ElementTree.SubElement(case, "failure", message=_xml(lines[0]))
                failure.text = _xml("\n".join(lines))
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", xml_declaration=True)
    path.write_text(text + "\n", encoding="utf-8")


def _xml(text: str) -> str:
    """Text without the characters that XML 1.0 cannot hold."""
    return "".join(
        character if character in "\t\n\r" or character >= " " else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )
