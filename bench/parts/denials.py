"""Denials, each recorded and synced to the disk before it is answered, and shipped into SQL
meanwhile; the same server's allows; and Cerbos' denials with its own decision log."""

from contextlib import ExitStack

from bench import pdp, plan
from bench.part import Figures, Run
from bench.peers import cerbos
from bench.series import ALLOWS, CERBOS, DENIALS, PDP, take_turns, turn_of


def measure(run: Run) -> Figures:
    """{"series": [...]}"""
    chosen, rules = run.chosen, plan.RULES
    with ExitStack() as stack:
        server = stack.enter_context(pdp.serving_policy(run.directory / "pdp", run.signer))
        allowed = pdp.check_target(server, run.signer, rules)
        denied = pdp.denial_target(server, run.signer, rules)
        turns = [
            turn_of(PDP, ALLOWS, allowed, chosen.loaded, chosen),
            turn_of(PDP, DENIALS, denied, chosen.loaded, chosen),
        ]
        if run.has(CERBOS):
            place = run.directory / "cerbos"
            other = stack.enter_context(
                cerbos.serving(place, run.signer, rules, logs_decisions=True)
            )
            target = cerbos.denial_target(other, run.signer, rules)
            turns.append(turn_of(CERBOS, DENIALS, target, chosen.loaded, chosen))
        return {"series": take_turns(turns, chosen.rounds, run.say)}
