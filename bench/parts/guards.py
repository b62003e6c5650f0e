"""What a guard costs beyond its generated stub, in every language: one question at a time, the stub
and the guard taking turns, against the same server."""

import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import pdp, plan
from bench.part import Figures, Run
from bench.processes import BenchError, require
from bench.processes import run as run_program
from pdp.model import Resource

_CLIENTS = plan.ROOT / "clients"
_TYPESCRIPT = _CLIENTS / "typescript"
_GO = plan.BUILD / "overhead-go"


@dataclass(frozen=True, slots=True)
class Guard:
    """A guard and how to measure it."""

    name: str
    directory: Path
    command: Sequence[str]
    prepare: Callable[[], None] | None = None
    """Raises BenchError."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """Medians, in microseconds."""

    guard: str
    raw_us: float
    guard_us: float
    overhead_us: float


def _prepare_typescript() -> None:
    require("npm")
    installed = _TYPESCRIPT / "node_modules" / ".package-lock.json"
    locked = _TYPESCRIPT / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < locked.stat().st_mtime:
        run_program(["npm", "ci", "--silent", "--no-audit", "--no-fund"], directory=_TYPESCRIPT)
    run_program(["npm", "run", "--silent", "build"], directory=_TYPESCRIPT)


def _prepare_go() -> None:
    require("go")
    run_program(
        ["go", "build", "-o", str(_GO), "./internal/overhead"],
        directory=_CLIENTS / "go",
        seconds_max=plan.BUILD_SECONDS_MAX,
    )


_PYTHON = (sys.executable, "-m", "bench.overhead")
GUARDS = (
    Guard("Python", plan.ROOT, _PYTHON),
    Guard("Python, asyncio", plan.ROOT, (*_PYTHON, "--asyncio")),
    Guard("TypeScript", _TYPESCRIPT, ("node", "bench/overhead.mjs"), _prepare_typescript),
    Guard("Go", _CLIENTS / "go", (str(_GO),), _prepare_go),
)


def prepare(run: Run) -> None:
    """Builds the guards. Those that cannot be built are left out."""
    for guard in GUARDS:
        if guard.prepare is not None:
            try:
                guard.prepare()
            except BenchError as error:
                run.left_out[_title(guard)] = str(error)


def measure(run: Run) -> Figures:
    """{"guards": [...]}"""
    run.directory.mkdir(parents=True)
    url = f"sqlite:///{run.directory / 'pdp.db'}"
    kind = plan.asked_kind(plan.RULES)
    asked_about = Resource(kind, f"{plan.KIND}_1", plan.ORGANIZATION)
    pdp.fill(url, itertools.chain(pdp.policy_of(plan.RULES), (asked_about,)))
    token = run.directory / "token"
    token.write_text(run.signer.token(plan.USER, plan.ORGANIZATION))
    kind = plan.asked_kind(plan.RULES)
    rows = []
    with pdp.serving(run.directory, run.signer, url) as server:
        for guard in GUARDS:
            if _title(guard) in run.left_out:
                continue
            asked = (
                *("--target", f"127.0.0.1:{server.port}", "--token-file", str(token)),
                *("--permission", f"{kind}:view", "--resource", f"{kind}/{plan.KIND}_1"),
                *("--calls", str(run.chosen.guard_calls)),
            )
            command = ("taskset", "-c", str(plan.LOAD_CORE), *guard.command, *asked)
            try:
                printed = run_program(command, directory=guard.directory)
            except BenchError as error:
                run.left_out[_title(guard)] = str(error)
                continue
            found = json.loads(printed.strip().splitlines()[-1])
            names = ("raw_us_p50", "guard_us_p50", "overhead_us_p50")
            rows.append(asdict(Overhead(guard.name, *(found[name] for name in names))))
    return {"guards": rows}


def _title(guard: Guard) -> str:
    return f"guard in {guard.name}"
