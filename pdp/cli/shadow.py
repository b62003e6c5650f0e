"""`pdp shadow`: a candidate policy that decides beside the real one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.options import Config, utc_text
from pdp.cli.output import HELP_STYLE, emit_json, fail, read_document, say

if TYPE_CHECKING:
    from pdp.facts import ShadowReport, ShadowStore

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=HELP_STYLE,
    help="A candidate policy that decides beside the real one, without any influence on answers.",
)


@app.command("set")
def set_(
    file: Annotated[Path, typer.Argument(help="The candidate: a policy document.")],
    sample: Annotated[
        float, typer.Option(min=0, max=1, help="The share of decisions that it makes too.")
    ] = 0.1,
    config: Config = None,
) -> None:
    """Sets the candidate for all processes, and forgets what was counted before.

    Its permissions, roles and rules are taken; the rest is that of the real policy.
    """
    from pdp.clock import wall_clock
    from pdp.document import PolicyDocument, parse_document, render_document
    from pdp.errors import InvalidPolicy

    if not 0 <= sample <= 1:  # not a number: the range of the option does not notice
        raise typer.BadParameter("must be a number from 0 to 1", param_hint="--sample")
    try:
        document = parse_document(read_document(file))
    except InvalidPolicy as error:
        for violation in error.violations:
            fail(violation.located(str(file)))
        raise typer.Exit(2) from None
    if document.permissions is None or document.roles is None:
        raise ValueError(f"{file}: a candidate has the sections permissions and roles")
    kept = PolicyDocument(
        permissions=document.permissions, roles=document.roles, rules=document.rules
    )
    candidate = _store(config).set(render_document(kept), sample, wall_clock())
    say(f"candidate {candidate.id} decides {sample:.0%} of the decisions too")


@app.command("status")
def status(config: Config = None) -> None:
    """Shows whether there is a candidate, and what was counted. Exit status 1: there is none."""
    found = _store(config).report()
    if found is None:
        say("there is no candidate")
        raise typer.Exit(1)
    counts = found.counts
    say(f"{_named(found)}, sample {found.candidate.sample:.0%}")
    say(
        f"{counts.decided} decided, {counts.flipped} flipped, {counts.failed} failed, "
        f"{counts.dropped} dropped"
    )


@app.command("clear")
def clear(config: Config = None) -> None:
    """Removes the candidate and what was counted."""
    say("the candidate is removed" if _store(config).clear() else "there is no candidate")


@app.command("report")
def report(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Lists the answers that the candidate would change, with examples.

    Exit status: 0 none, 1 some, 2 there is no candidate or no result.
    """
    found = _store(config).report()
    if found is None:
        raise ValueError("there is no candidate; `pdp shadow set` sets one")
    counts, flips = found.counts, found.flips
    if as_json:
        fields = {
            "candidate": found.candidate.id,
            "set_at": found.candidate.set_at,
            "decided": counts.decided,
            "flipped": counts.flipped,
            "failed": counts.failed,
            "dropped": counts.dropped,
            "flips": [
                {**flip.group._asdict(), "count": flip.times, "examples": flip.examples}
                for flip in flips
            ],
        }
        emit_json(fields, indent=2)
    else:
        say(_named(found))
        for flip in flips:
            group = flip.group
            before = "deny" if group.effect == "allow" else "allow"
            rules = f"{group.rule_before or 'no rule'} -> {group.rule_after or 'no rule'}"
            say(f"{group.permission}: {before} -> {group.effect} ({rules}): {flip.times}")
            for example in flip.examples:
                resource = example["resource"]
                say(
                    f"  {example['user']}"
                    + (f" in {example['organization']}" if example["organization"] else "")
                    + (f" on {resource}" if resource else "")
                    + f": {example['before']} -> {example['after']}"
                )
        say(f"{counts.flipped} of {counts.decided} decisions flip; {counts.dropped} were dropped")
    raise typer.Exit(1 if counts.flipped else 0)


def _named(found: "ShadowReport") -> str:
    """The candidate that a report is about: somebody else may have set another one since."""
    set_at = utc_text(found.candidate.set_at)
    return f"candidate {found.candidate.id}, set {set_at}"


def _store(config: Path | None) -> "ShadowStore":
    from pdp.cli.database import open_store
    from pdp.facts import ShadowStore
    from pdp.settings import DatabaseSettings

    return ShadowStore(open_store(DatabaseSettings.load(config), create=False).engine)
