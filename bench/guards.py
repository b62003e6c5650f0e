"""What a guard costs beyond its generated stub, in every language: one question at a time, the stub
and the guard taking turns, against the same server."""

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import pdp, plan
from bench.plan import Plan
from bench.processes import BenchError
from bench.signer import Signer
from pdp.model import Resource

_RULES = 1_100
_CLIENTS = plan.ROOT / "clients"
_SECONDS_MAX = 300


@dataclass(frozen=True, slots=True)
class Guard:
    """A guard and how to measure it."""

    name: str
    directory: Path
    needs: str
    """The program without which there is no measurement."""
    prepare: Sequence[str]
    command: Sequence[str]


@dataclass(frozen=True, slots=True)
class Overhead:
    """Medians, in microseconds."""

    guard: str
    raw_us: float
    guard_us: float
    overhead_us: float


_PYTHON = (sys.executable, "-m", "bench.overhead")
_GO = plan.BUILD / "overhead-go"
GUARDS = (
    Guard("Python", plan.ROOT, sys.executable, (), _PYTHON),
    Guard("Python, asyncio", plan.ROOT, sys.executable, (), (*_PYTHON, "--asyncio")),
    Guard(
        "TypeScript",
        _CLIENTS / "typescript",
        "npm",
        ("npm", "run", "--silent", "build"),
        ("node", "bench/overhead.mjs"),
    ),
    Guard(
        "Go",
        _CLIENTS / "go",
        "go",
        ("go", "build", "-o", str(_GO), "./internal/overhead"),
        (str(_GO),),
    ),
)


def measure_guards(
    directory: Path, signer: Signer, chosen: Plan, say: Callable[[str], None]
) -> list[Overhead]:
    """A row for each guard whose language is installed here; `say` is told of the others."""
    url = f"sqlite:///{directory / 'pdp.db'}"
    directory.mkdir(parents=True)
    kind = plan.asked_kind(_RULES)
    asked_about = Resource(kind, f"{plan.KIND}_1", plan.ORGANIZATION)
    pdp.fill(url, itertools.chain(pdp.policy_of(_RULES), (asked_about,)))
    token = directory / "token"
    token.write_text(signer.token(plan.USER, plan.ORGANIZATION))
    rows = []
    with pdp.serving(directory, signer, url) as server:
        for guard in GUARDS:
            if shutil.which(guard.needs) is None:
                say(f"no row for the guard in {guard.name}: {guard.needs} is not installed")
                continue
            if guard.prepare:
                _run(guard.prepare, guard.directory)
            asked = (
                *("--target", f"127.0.0.1:{server.port}", "--token-file", str(token)),
                *("--permission", f"{kind}:view", "--resource", f"{kind}/{plan.KIND}_1"),
                *("--calls", str(chosen.guard_calls)),
            )
            said = _run(
                ("taskset", "-c", str(plan.LOAD_CORE), *guard.command, *asked), guard.directory
            )
            found = json.loads(said.strip().splitlines()[-1])
            rows.append(
                Overhead(
                    guard.name,
                    found["raw_us_p50"],
                    found["guard_us_p50"],
                    found["overhead_us_p50"],
                )
            )
    return rows


def _run(command: Sequence[str], directory: Path) -> str:
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False
    )
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout
