"""`pdp replay`: past decisions asked again with a candidate policy."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pdp.cli.options import Config, duration_of
from pdp.cli.output import emit_json, fail, read_document, say

if TYPE_CHECKING:
    from pdp.audit import DecisionLog, DecisionRecord
    from pdp.decision import Policy
    from pdp.impact import Replay

_PAGE: Final = 1_000


class Output(StrEnum):
    """How the result is printed."""

    TEXT = "text"
    JSON = "json"


def replay(
    file: Annotated[Path, typer.Argument(help="The candidate: a policy document.")],
    since: Annotated[str, typer.Option(help="How far back, e.g. 12h, 7d, 2w.")] = "7d",
    output: Annotated[
        Output, typer.Option("--output", "-o", help="How to print it.")
    ] = Output.TEXT,
    config: Config = None,
) -> None:
    """Asks past decisions again: how many would flip, for which users, by which rule?

    Takes permissions, roles and rules from the document and the rest as it was recorded, which
    needs `audit_inputs = "full"`. Reads the database that the settings name.

    Exit status: 0 no decision flips, 1 some do, 2 there is no result.
    """
    from pdp.audit import DecisionLog
    from pdp.cli.database import open_store
    from pdp.clock import wall_clock
    from pdp.impact import replay as ask_again
    from pdp.settings import DatabaseSettings

    age = duration_of(since)
    if age is None:
        raise typer.BadParameter("write a number and a unit: 12h, 7d, 2w", param_hint="--since")
    candidate = _candidate(file)
    log = DecisionLog(open_store(DatabaseSettings.load(config), create=False).engine)
    result = ask_again(_records(log, wall_clock() - age.total_seconds()), candidate)
    if output is Output.JSON:
        emit_json(_fields(result), indent=2)
    else:
        _show(result)
    raise typer.Exit(1 if result.flipped else 0)


def _candidate(file: Path) -> "Policy":
    """The policy of a document with permissions and roles. Exits with status 2 if it is none."""
    from pdp.errors import InvalidPolicy
    from pdp.impact import policy_of

    text = read_document(file)
    try:
        return policy_of(text)
    except InvalidPolicy as error:
        for violation in error.violations:
            fail(violation.located(str(file)))
        raise typer.Exit(2) from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _records(log: "DecisionLog", not_before: float) -> "Iterator[DecisionRecord]":
    from pdp.audit import DecisionFilter

    where, after = DecisionFilter(not_before=not_before), None
    while True:
        page = log.list(where, after, _PAGE)
        yield from page.decisions
        after = page.after
        if after is None:
            return


def _show(result: "Replay") -> None:
    ordered = sorted(result.flips.items(), key=lambda item: (-item[1].count, item[0].permission))
    for key, flips in ordered:
        by = f"by {key.rule_after}" if key.rule_after is not None else "by no rule"
        before = f", before by {key.rule_before}" if key.rule_before is not None else ""
        say(
            f"{key.permission}: {_before(key.effect.value)} -> {key.effect.value} {by}{before}: "
            f"{flips.count} decisions, {len(flips.users)} users"
        )
        for record, decision in flips.examples:
            resource = record.resource
            what = "" if resource is None else f" on {resource.type}:{resource.id}"
            user = record.actor.user_id if record.actor is not None else ""
            reasons = f"{record.reason.name} -> {decision.reason.name}"
            say(f"  {record.decision_id}: {user}{what}: {reasons}")
    for name, count in _left_out(result).items():
        if count:
            say(f"not asked again: {count} {name}")
    say(f"{result.flipped} of {result.flipped + result.same} decisions flip")


def _before(after: str) -> str:
    return "deny" if after == "allow" else "allow"


def _left_out(result: "Replay") -> dict[str, int]:
    return {
        "denied before any rule, which no policy changes": result.before_rules,
        "recorded without inputs": result.without_inputs,
        "of which the candidate reads a value that was redacted or cut": result.inexact,
        "of which the inputs are cut or of another form": result.unusable,
        "queries, and decisions that sidecars served": result.not_decided_here,
        "equal denials that share a record, at other times": result.folded,
    }


def _fields(result: "Replay") -> dict[str, Any]:
    return {
        "flipped": result.flipped,
        "same": result.same,
        "before_rules": result.before_rules,
        "without_inputs": result.without_inputs,
        "inexact": result.inexact,
        "unusable": result.unusable,
        "not_decided_here": result.not_decided_here,
        "folded": result.folded,
        "flips": [
            {
                "permission": key.permission,
                "after": key.effect.value,
                "rule_before": key.rule_before,
                "rule_after": key.rule_after,
                "decisions": flips.count,
                "users": len(flips.users),
                "examples": [record.decision_id for record, _ in flips.examples],
            }
            for key, flips in result.flips.items()
        ],
    }
