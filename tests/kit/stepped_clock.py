"""`python -m tests.kit.stepped_clock FILE COMMAND...`: runs `pdp` with a wall clock that is off by
as many seconds as the file says, read at each look. No other clock is touched: not those of the
libraries either, for grpcio waits by `time.time`."""

import sys
from pathlib import Path


def main() -> None:
    from pdp import clock

    offset, real = Path(sys.argv[1]), clock.wall_clock
    # Before anything else of `pdp` is imported.
    clock.wall_clock = lambda: real() + float(offset.read_text())

    from pdp.cli import main as pdp

    sys.argv = ["pdp", *sys.argv[2:]]
    pdp()


if __name__ == "__main__":
    main()
