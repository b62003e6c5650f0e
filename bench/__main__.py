"""`python -m bench [--quick]`: measures, prints the table, writes `build/bench.json`."""

import argparse
import os
import shutil
import sys

from rich.console import Console

from bench import cerbos, edges, guards, million, plan, rounds, webhooks
from bench.processes import BenchError, require
from bench.report import Report
from bench.signer import make_signer


def main() -> int:
    """Exit status 0 when everything was measured, whether or not the targets are reached."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--quick", action="store_true", help="one short round, small sizes")
    chosen = plan.QUICK if parser.parse_args().quick else plan.FULL
    console = Console(width=110 if not sys.stdout.isatty() else None, highlight=False)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        require("h2load", "taskset", "npm")
        if len(os.sched_getaffinity(0)) < 2:
            raise BenchError("two cores are needed: one for the server, one for the load generator")
        # This process reads logs and sorts: not on the server's core.
        os.sched_setaffinity(0, {plan.LOAD_CORE})
        directory = plan.BUILD / "run"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        cerbos.install()
        signer = make_signer(directory)
        series = rounds.compare(directory, signer, chosen, say)
        series += rounds.denials(directory, signer, chosen, say)
        say(f"load {chosen.users:,} users on PostgreSQL")
        loaded = million.measure(directory / "million", signer, chosen)
        say("webhooks")
        told = webhooks.measure(directory / "webhooks", signer, chosen)
        say("replica, sidecar and caching guard")
        kept = edges.measure_edges(directory / "edges", signer, chosen)
        say("what guards cost beyond their stubs")
        overheads = guards.measure_guards(directory / "guards", signer, chosen, say)
    except BenchError as error:
        say(f"bench: {error}")
        return 2
    report = Report(series, loaded, told, kept, overheads)
    report.show(console)
    report.write(plan.REPORT)
    console.print(f"\nwritten to {plan.REPORT.relative_to(plan.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
