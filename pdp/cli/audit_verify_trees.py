"""The part of `pdp audit verify` that checks trees."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pdp.cli.options import utc_text
from pdp.cli.output import fail, say

if TYPE_CHECKING:
    from pdp.audit.transparency import VerifierKey
    from pdp.audit.transparency.verification import TreeReport
    from pdp.facts import Store


PROBLEMS_MAX = 100
"""How many are printed."""


class Demands(NamedTuple):
    """What trees must agree with."""

    keys: "list[VerifierKey]"
    checkpoints: list[Path]
    """Files of older checkpoints."""
    witnesses: "list[VerifierKey]"
    cosignatures: int
    """How many witnesses must have cosigned each tree."""


def verify_trees(directory: Path, store: "Store | None", demands: Demands) -> bool:
    """Checks the trees below a directory, and the rows of their logs; prints the result.

    Returns whether everything holds.
    """
    from pdp.audit.transparency import DamagedTreeError
    from pdp.audit.transparency.notes import unverified_checkpoint
    from pdp.audit.transparency.proofs import find_trees
    from pdp.audit.transparency.verification import compare_with_sql, verify_tree

    problems = 0

    def report_problem(problem: str) -> None:
        nonlocal problems
        problems += 1
        if problems <= PROBLEMS_MAX:
            fail(f"tree: {problem}")

    try:
        trees = find_trees([directory])
    except DamagedTreeError as error:
        report_problem(str(error))
        return False
    keys, paths, witnesses, cosignatures = demands
    older = [unverified_checkpoint(path.read_text(encoding="utf-8")) for path in paths]
    for checkpoint in older:
        if checkpoint.origin not in {tree.checkpoint.origin for tree in trees}:
            report_problem(f"the tree of the checkpoint {checkpoint.origin} is not here")
    if cosignatures and not trees:
        report_problem("there is none that a witness could have cosigned")
    for tree in trees:
        report = verify_tree(tree, keys, older, witnesses=witnesses, cosignatures=cosignatures)
        for problem in report.problems:
            report_problem(f"{report.origin}: {problem}")
        if report.problems:
            continue
        if store is not None:
            compare_with_sql(store.engine, tree, report, report_problem)
        _say_tree(report, compared=store is not None)
    if problems > PROBLEMS_MAX:
        fail(f"tree: and {problems - PROBLEMS_MAX} more problems")
    if trees and not keys:
        say("could not be checked: signatures of checkpoints (give --key)")
    if not trees:
        say("could not be checked: trees (there is none; see audit_tree in the settings)")
    return not problems


def _say_tree(report: "TreeReport", *, compared: bool) -> None:
    if report.changes:
        say(f"{report.origin}: {report.changes} administration records")
    else:
        in_sql = f" ({report.in_sql} compared with the database)" if compared else ""
        say(
            f"{report.origin}: {report.records} records{in_sql}, {report.dropped} dropped, "
            f"{report.decisions} decisions"
        )
    for name, time in report.cosigned_at.items():
        when = utc_text(time)
        say(f"{report.origin}: {name} cosigned size {report.cosigned_size} at {when}")
