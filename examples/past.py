"""`python examples/past.py SECONDS COMMAND...`: runs `pdp COMMAND` with a clock that is far behind,
so that a policy is older than an invented history of its decisions."""

import sys
import time


def main() -> None:
    seconds, *sys.argv[1:] = sys.argv[1:]
    behind, now = float(seconds), time.time
    time.time = lambda: now() - behind
    from pdp.cli import main as pdp  # noqa: PLC0415  # after the clock is set back

    pdp()


if __name__ == "__main__":
    main()
