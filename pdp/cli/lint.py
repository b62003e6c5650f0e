"""`pdp lint`: what is likely a mistake in policy documents, offline."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdp.cli.output import emit_json, fail, read_document, say, say_marked

if TYPE_CHECKING:
    from pdp.document import Finding

    Located = Sequence[tuple[str, Finding]]

_COLOURS = {"warning": "yellow", "note": "cyan"}
_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


class Output(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


def lint(
    files: Annotated[list[str], typer.Argument(help="Policy documents; - reads standard input.")],
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TEXT,
) -> None:
    """Finds what is likely a mistake in policies that hold together.

    Exit status: 0 nothing but notes and silenced findings, 1 warnings, 2 a file is refused.
    """
    from pdp.document import lint as findings_of
    from pdp.document import parse_document
    from pdp.errors import InvalidPolicy

    found: list[tuple[str, Finding]] = []
    refused = False
    for file in files:
        name = "stdin" if file == "-" else file
        try:
            found += [
                (name, finding) for finding in findings_of(parse_document(read_document(file)))
            ]
        except InvalidPolicy as error:
            refused = True
            for violation in error.violations:
                fail(violation.located(name))
    if output is Output.TEXT:
        _show(found)
    else:
        written = _sarif(found) if output is Output.SARIF else _json(found)
        emit_json(written, indent=2)
    if refused:
        raise typer.Exit(2)
    raise typer.Exit(1 if any(_counts(finding) for _, finding in found) else 0)


def _counts(finding: "Finding") -> bool:
    return finding.silenced is None and finding.rule.level == "warning"


def _show(found: "Located") -> None:
    active = [(name, finding) for name, finding in found if finding.silenced is None]
    for name, finding in active:
        level = finding.rule.level
        say_marked(level, _COLOURS[level], f"{finding.violation.located(name)} [{finding.rule.id}]")
    warnings = sum(finding.rule.level == "warning" for _, finding in active)
    say(f"{warnings} warnings, {len(active) - warnings} notes, {len(found) - len(active)} silenced")


def _json(found: "Located") -> list[dict[str, Any]]:
    return [
        {
            "file": name,
            "line": finding.violation.line,
            "column": finding.violation.column,
            "field": finding.violation.field,
            "rule": finding.rule.id,
            "level": finding.rule.level,
            "description": finding.violation.description,
            "silenced": finding.silenced,
        }
        for name, finding in found
    ]


def _sarif(found: "Located") -> dict[str, Any]:
    """SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/), for code scanners."""
    from importlib.metadata import version

    from pdp.document import ALL_RULES

    return {
        "$schema": _SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "pdp lint",
                        "version": version("pdp"),
                        "rules": [
                            {
                                "id": rule.id,
                                "shortDescription": {"text": rule.title},
                                "defaultConfiguration": {"level": rule.level},
                            }
                            for rule in ALL_RULES
                        ],
                    }
                },
                "results": [_sarif_result(name, finding) for name, finding in found],
            }
        ],
    }


def _sarif_result(name: str, finding: "Finding") -> dict[str, Any]:
    violation = finding.violation
    region = {"startLine": violation.line or 1}
    if violation.column is not None:
        region["startColumn"] = violation.column
    result: dict[str, Any] = {
        "ruleId": finding.rule.id,
        "level": finding.rule.level,
        "message": {"text": f"{violation.field}: {violation.description}"},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": _uri(name)}, "region": region}}
        ],
    }
    if finding.silenced is not None:
        result["suppressions"] = [{"kind": "inSource", "justification": finding.silenced}]
    return result


def _uri(name: str) -> str:
    from urllib.parse import quote

    return quote(name)
