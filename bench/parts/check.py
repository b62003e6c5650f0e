"""The same question to all subjects, at all sizes of policy; all servers run all the time."""

from contextlib import ExitStack
from functools import partial

from bench import pdp, plan
from bench.load import Target
from bench.part import Figures, Run
from bench.peers import pycasbin
from bench.processes import BenchError
from bench.series import LOADED, PDP, UNLOADED, Turn, take_turns, turn_of


def measure(run: Run) -> Figures:
    """{"series": [...]}"""
    turns: list[Turn] = []
    with ExitStack() as stack:
        for rules in run.chosen.rule_counts:
            run.say(f"  start servers with {rules:,} rules")
            place = run.directory / f"pdp-{rules}"
            server = stack.enter_context(pdp.serving_policy(place, run.signer, rules))
            turns += _of_server(run, PDP, rules, pdp.check_target(server, run.signer, rules))
            for peer in run.peers:
                if not (peer.usual or rules == plan.RULES):
                    continue
                if peer.checking is None:
                    turns.append(_of_pycasbin(run, rules))
                    continue
                place = run.directory / f"{peer.name}-{rules}"
                try:
                    target = stack.enter_context(peer.checking(place, run.signer, rules))
                except BenchError as error:
                    run.left_out[f"{peer.name}, {rules:,} rules"] = str(error)
                else:
                    turns += _of_server(run, peer.name, rules, target)
        return {"series": take_turns(turns, run.chosen.rounds, run.say)}


def _of_server(run: Run, subject: str, rules: int, target: Target) -> list[Turn]:
    return [
        turn_of(subject, what, target, load, run.chosen, rules=rules)
        for what, load in ((LOADED, run.chosen.loaded), (UNLOADED, run.chosen.unloaded))
    ]


def _of_pycasbin(run: Run, rules: int) -> Turn:
    ask = partial(pycasbin.measure, run.signer, rules, run.chosen.unloaded.seconds)
    return Turn(pycasbin.NAME, LOADED, ask, rules)
