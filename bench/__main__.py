"""`python -m bench`: measures, writes `build/bench.json`, prints the tables of the page."""

import argparse
import os
import shutil
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bench import page, plan, record
from bench.part import Part, Run
from bench.parts import PARTS
from bench.peers.table import PEERS, Peer
from bench.processes import BenchError, require
from bench.record import Record
from bench.signer import make_signer


def main() -> int:
    """Exit status 0: everything that was asked for was measured, whatever the figures say.
    1: a part failed. 2: nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", epilog=_help_of_parts())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="one short round, small sizes")
    parser.add_argument("--only", metavar="PARTS", help="such as check,denials")
    usual = ",".join(name for name, peer in PEERS.items() if peer.usual)
    parser.add_argument(
        "--peers", default=usual, help=f"all, or some of {','.join(PEERS)} (default: {usual})"
    )
    parser.add_argument(
        "--render",
        action="store_true",
        help="measure nothing; write docs/performance.md and its plot from build/bench.json",
    )
    chosen = parser.parse_args()
    if chosen.render:
        page.write(record.read(plan.REPORT))
        return 0
    try:
        parts = _chosen(chosen.only or "all", PARTS, "part")
        peers = _chosen(chosen.peers, PEERS, "peer")
        if len(os.sched_getaffinity(0)) < 2:
            raise BenchError("two cores are needed: one for the server, one for the load generator")
    except BenchError as error:
        _say(f"bench: {error}")
        return 2
    return _measure(parts, peers, quick=chosen.quick)


def _measure(names: Sequence[str], peers: Sequence[str], *, quick: bool) -> int:
    directory = plan.BUILD / "run"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    written = Record(plan.REPORT, names, quick=quick)
    run = Run(directory, make_signer(directory), plan.QUICK if quick else plan.FULL, (), _say)
    versions: dict[str, str] = {}
    if any(PARTS[name].asks_peers for name in names):
        run = replace(run, peers=_install(peers, run, versions))
    ready = [name for name in names if _prepared(name, PARTS[name], run, written)]
    failed = len(names) - len(ready)
    # From here on this process reads logs and sorts: not on the server's core.
    os.sched_setaffinity(0, {plan.LOAD_CORE})
    for name in ready:
        _say(f"{name}: {PARTS[name].what}")
        try:
            figures = PARTS[name].measure(replace(run, directory=directory / name))
        except Exception as error:  # noqa: BLE001  # whatever it was, the other parts go on
            _fail(name, error, written)
            failed += 1
        else:
            written.add(name, figures, versions)
    written.leave_out(run.left_out)
    print(page.tables(written.content))
    _say(f"written to {plan.REPORT.relative_to(plan.ROOT)}")
    _say(page.missing(written.content))
    return 1 if failed else 0


def _install(names: Sequence[str], run: Run, versions: dict[str, str]) -> list[Peer]:
    """Those that could be installed; `versions` is filled."""
    installed = []
    for name in names:
        peer = PEERS[name]
        _say(f"install {peer.name}")
        try:
            versions[peer.name] = peer.install()
        except BenchError as error:
            run.left_out[peer.name] = str(error)
            _say(f"  left out: {error}")
        else:
            installed.append(peer)
    return installed


def _prepared(name: str, part: Part, run: Run, written: Record) -> bool:
    _say(f"prepare {name}")
    try:
        require(*part.needs)
        if part.prepare is not None:
            part.prepare(run)
    except BenchError as error:
        _fail(name, error, written)
        return False
    return True


def _fail(name: str, error: Exception, written: Record) -> None:
    reason = str(error) if isinstance(error, BenchError) else repr(error)
    _say(f"  failed: {reason}")
    if not isinstance(error, BenchError):
        traceback.print_exception(error)
    written.fail(name, reason)


def _chosen(text: str, known: Iterable[str], what: str) -> list[str]:
    """The names of a list with commas, in their usual order. Raises BenchError."""
    names = set(known) if text == "all" else set(text.split(","))
    if unknown := names - set(known):
        known_names = ", ".join(known)
        raise BenchError(f"no such {what}: {', '.join(sorted(unknown))} (there is {known_names})")
    return [name for name in known if name in names]


def _help_of_parts() -> str:
    return "parts:\n" + "\n".join(f"  {name:10}{part.what}" for name, part in PARTS.items())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
