"""The cost of a candidate policy that also decides a tenth of the Checks. A server with a candidate
and a server without one take turns."""

from contextlib import ExitStack
from statistics import median

from bench import pdp, plan
from bench.load import Target
from bench.part import Figures, Run
from bench.processes import BenchError
from bench.series import LOADED, PDP, take_turns, turn_of
from pdp.database.engine import open_engine
from pdp.document import PolicyDocument, render_document
from pdp.facts import ShadowStore
from pdp.impact.shadow import REFRESH_SECONDS
from pdp.model import Permission, Role, Rule

SAMPLE = 0.1


def measure(run: Run) -> Figures:
    """Microseconds of a core for each Check, without and with a candidate, of each round."""
    with ExitStack() as stack:
        targets: list[Target] = []
        for name in ("without", "with"):
            directory = run.directory / name
            server = stack.enter_context(pdp.serving_policy(directory, run.signer))
            targets.append(pdp.check_target(server, run.signer, plan.RULES))
        store = ShadowStore(open_engine(f"sqlite:///{run.directory / 'with' / 'pdp.db'}"))
        store.set(_candidate(), SAMPLE, 0)
        turns = [turn_of(PDP, LOADED, target, run.chosen.loaded, run.chosen) for target in targets]
        run.say(f"  the candidate is taken within {REFRESH_SECONDS} s, before the warm-up ends")
        series = take_turns(turns, max(run.chosen.rounds, ROUNDS_MIN), run.say)
        report = store.report()
    if report is None:
        raise BenchError("there must be a candidate")
    counts = report.counts
    pdp.expect(counts.decided > 0, "the candidate must decide")
    pdp.expect(counts.flipped == 0, "the candidate is the same policy")
    without, beside = (
        [row["core_share"] / row["requests_per_second"] * 1e6 for row in rounds["rounds"]]
        for rounds in series
    )
    more = median(after / before - 1 for before, after in zip(without, beside, strict=True))
    run.say(f"  {median(without):.1f} us, with a candidate {median(beside):.1f} us: {more:+.1%}")
    return {
        "sample": SAMPLE,
        "without_us": without,
        "with_us": beside,
        "more": more,
        "decided": counts.decided,
        "dropped": counts.dropped,
    }


ROUNDS_MIN = 5


def _candidate() -> str:
    entities = list(pdp.policy_of(plan.RULES))
    return render_document(
        PolicyDocument(
            permissions=tuple(entity for entity in entities if isinstance(entity, Permission)),
            roles=tuple(entity for entity in entities if isinstance(entity, Role)),
            rules=tuple(entity for entity in entities if isinstance(entity, Rule)),
        )
    )
