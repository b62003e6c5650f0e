"""pycasbin, in process: PyJWT verifies the token for every question, then the enforcer is asked.

Runs as a program of its own (`python -m bench.peers.pycasbin KEY RULES SECONDS`, the token on its
standard input), so that it is pinned like the servers and its memory is its own. Prints a line of
JSON.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import casbin  # type: ignore[import-untyped]
import jwt

from bench import plan
from bench.load import Measurement
from bench.processes import BenchError, Noise, resident_mib
from bench.signer import ISSUER, Signer

NAME = "pycasbin"

_WARM_SECONDS_PART = 0.2
_MARGIN_SECONDS = 300
"""For reading the policy and for one question that takes long."""


def install() -> str:
    """Its version; it is installed with this project's tools."""
    return version("casbin")


def measure(signer: Signer, rules: int, seconds: int) -> Measurement:
    """What one thread answers."""
    ran = subprocess.run(
        [
            *("taskset", "-c", str(plan.SERVER_CORE), sys.executable, "-m", "bench.peers.pycasbin"),
            *(str(signer.public_key_file), str(rules), str(seconds)),
        ],
        input=signer.token(plan.USER, plan.ORGANIZATION),
        capture_output=True,
        text=True,
        cwd=plan.ROOT,
        timeout=seconds + _MARGIN_SECONDS,
        check=False,
    )
    if ran.returncode:
        raise BenchError(f"pycasbin: {ran.stderr[-2000:]}")
    return Measurement(**json.loads(ran.stdout))


def enforcer_of(rules: int) -> casbin.Enforcer:
    """The policy of `policies/casbin`, repeated for as many kinds as make so many rules."""
    source = plan.POLICIES / "casbin"
    enforcer = casbin.Enforcer(str(source / "model.conf"))
    lines = [line.split(", ") for line in (source / "course.csv").read_text().splitlines()]
    enforcer.add_policies(
        [[role, kind, *rest] for kind in plan.kinds_of(rules) for role, _, *rest in lines]
    )
    enforcer.add_grouping_policy(plan.USER, plan.ROLE)
    return enforcer


def main(key_file: str, rules: int, seconds: int) -> None:
    """Asks until the time is over, at least once."""
    key, token = Path(key_file).read_text(), sys.stdin.read()
    enforcer, kind = enforcer_of(rules), plan.asked_kind(rules)

    def ask(owner: str) -> bool:
        claims = jwt.decode(
            token, key, algorithms=["RS256"], issuer=ISSUER, options={"require": ["exp"]}
        )
        allowed: bool = enforcer.enforce(claims["sub"], kind, plan.ACTION, owner)
        return allowed

    if ask(plan.STRANGER) or not ask(plan.USER):
        raise BenchError("pycasbin must allow to the owner alone")
    _ask_for(ask, seconds * _WARM_SECONDS_PART)
    before, noise = time.process_time(), Noise.listen()
    started = time.perf_counter()
    latencies = sorted(_ask_for(ask, seconds))
    elapsed = time.perf_counter() - started
    print(
        json.dumps(
            {
                "requests_per_second": len(latencies) / elapsed,
                "p50_ms": latencies[round(0.50 * (len(latencies) - 1))] * 1000,
                "p99_ms": latencies[round(0.99 * (len(latencies) - 1))] * 1000,
                "core_share": (time.process_time() - before) / elapsed,
                "others_share": noise.others_seconds(0) / elapsed,
                "requests": len(latencies),
                "resident_mib": resident_mib(os.getpid()),
            }
        )
    )


def _ask_for(ask: Callable[[str], bool], seconds: float) -> list[float]:
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    while not latencies or time.perf_counter() < end:
        started = time.perf_counter()
        ask(plan.USER)
        latencies.append(time.perf_counter() - started)
    return latencies


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
