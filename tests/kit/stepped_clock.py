"""A wall clock of `pdp` that is wrong. No other clock is touched: not those of the libraries
either, for grpcio waits by `time.time`."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pdp.clock


def step_wall_clock(ahead: Callable[[], float]) -> None:
    """Puts the wall clock of this process ahead of the real time, by as many seconds as `ahead()`
    says at each look. Modules that have imported `wall_clock` see it too."""
    stepped = {**vars(time), "time": lambda: time.time() + ahead()}
    pdp.clock.time = SimpleNamespace(**stepped)  # type: ignore[assignment]


def follow(file: str) -> None:
    """Puts it ahead by what the file says."""
    step_wall_clock(lambda: float(Path(file).read_text()))
