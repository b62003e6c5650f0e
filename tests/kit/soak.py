"""How much of a large oracle a run asks for: a sample in `make test`, all of it in `make soak`.

@pytest.mark.soak
def test_...: for seed in soak.seeds(1_000, sample=150): ...

SOAK_SEEDS=200-399 asks for a part of the seeds, so that a long run can be divided:

    SOAK=1 SOAK_SEEDS=200-399 python -m pytest -m soak tests/rls/test_oracle.py
"""

import os
from typing import Final

SOAK: Final = os.environ.get("SOAK") == "1"


def count(whole: int, *, sample: int) -> int:
    """How many cases to try. Mark the test with `soak`, so that `make soak` finds it."""
    return whole if SOAK else sample


def seeds(whole: int, *, sample: int) -> range:
    """The seeds of the cases to try: 0 to `count` - 1, or those of them in SOAK_SEEDS."""
    every = range(count(whole, sample=sample))
    first, _, last = os.environ.get("SOAK_SEEDS", "").partition("-")
    return every[int(first) : int(last) + 1] if first else every
