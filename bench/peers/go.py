"""Builds a peer with Go, from the module proxy."""

from pathlib import Path

from bench import plan
from bench.processes import require, run


def install(package: str, version: str) -> Path:
    """The program of a package at a version, built once. Raises BenchError if that fails."""
    directory = plan.BUILD / "go" / f"{package.rpartition('/')[2]}-{version}"
    program = directory / package.rpartition("/")[2]
    if not program.exists():
        require("go")
        run(
            ["go", "install", f"{package}@v{version}"],
            environment={"GOBIN": str(directory)},
            seconds_max=plan.BUILD_SECONDS_MAX,
        )
    return program
