"""Many checks in one request: this PDP's BatchCheck of 1,000, Cerbos' CheckResources of 50; a Check
beside such batches; and a Check without any transport, which says how fast the machine is."""

import sys
from contextlib import ExitStack
from statistics import median

from bench import load, pdp, plan, processes
from bench.load import Measurement, Target
from bench.part import Figures, Run
from bench.peers import cerbos
from bench.series import BATCH, BESIDE_BATCHES, CERBOS, PDP, Turn, take_turns, turn_of

_MARGIN_SECONDS = 3
"""For the start and the end of the load beside them."""


def measure(run: Run) -> Figures:
    """{"series": [...], "in_process_us": ...}"""
    chosen, rules = run.chosen, plan.RULES
    with ExitStack() as stack:
        server = stack.enter_context(pdp.serving_policy(run.directory / "pdp", run.signer))
        batches = pdp.batch_target(server, run.signer, rules)
        check = pdp.check_target(server, run.signer, rules)
        turns = [turn_of(PDP, BATCH, batches, chosen.batches, chosen, checks=plan.BATCH_ITEMS)]
        if run.has(CERBOS):
            items = plan.CERBOS_BATCH_ITEMS
            place = run.directory / "cerbos"
            other = stack.enter_context(cerbos.serving(place, run.signer, rules))
            target = cerbos.allow_target(other, run.signer, rules, items)
            turns.append(turn_of(CERBOS, BATCH, target, chosen.batches, chosen, checks=items))
        turns.append(Turn(PDP, BESIDE_BATCHES, lambda: _beside(run, check, batches), pid=check.pid))
        series = take_turns(turns, chosen.rounds, run.say)
    in_process = [_in_process_us(run, check) for _ in range(chosen.rounds)]
    run.say(f"  a Check in process: {median(in_process):.1f} us")
    return {"series": series, "in_process_us": median(in_process)}


def _beside(run: Run, check: Target, batches: Target) -> Measurement:
    """Checks, while batches keep the server busy."""
    chosen = run.chosen
    seconds = chosen.beside_batches.seconds + chosen.warm_seconds + _MARGIN_SECONDS
    with load.running(batches, chosen.batches, seconds):
        return load.measure(check, chosen.beside_batches, chosen.warm_seconds)


def _in_process_us(run: Run, check: Target) -> float:
    """Processor time of a Check that is handed to the application as bytes, in its own process."""
    ports = processes.free_port(), processes.free_port()
    directory = run.directory / "pdp"
    url = f"sqlite:///{directory / 'pdp.db'}"
    printed = processes.run(
        [
            *("taskset", "-c", str(plan.SERVER_CORE), sys.executable, "-m", "bench.in_process"),
            *(check.path, str(check.body), str(run.chosen.in_process_checks)),
        ],
        environment=pdp.environment_of(directory / "in-process", run.signer, url, *ports),
    )
    return float(printed)
