"""How much of a large oracle a run asks for: a sample in `make test`, all of it in `make soak`.

@pytest.mark.soak
def test_...: for seed in range(soak.count(1_000, sample=150)): ...
"""

import os
from typing import Final

SOAK: Final = os.environ.get("SOAK") == "1"


def count(whole: int, *, sample: int) -> int:
    """How many cases to try. Mark the test with `soak`, so that `make soak` finds it."""
    return whole if SOAK else sample
