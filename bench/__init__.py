"""Side-by-side measurements: `make bench`, or `python -m bench --quick` for a look.

Every subject answers the same question in the same run: may the bearer of this RS256 session token
edit this course, which those with the role INSTRUCTOR may if they own it? Servers are pinned to
one core (`plan.SERVER_CORE`), the load generator to another, and the subjects take turns, so that
a noisy moment of the machine hits all of them; what is reported are medians over the rounds, and
ratios are medians of the ratios within each round.

Nothing is believed: before a subject is measured it must answer allow to the owner and deny to
another, and while it is measured every response must have the length of an allow.

In: this checkout, h2load, taskset; npm and Go for peers and guards. Out: `build/bench.json`
(`record.py`), and from it tables and a plot (`results.py`, `page.py`, `plot.py`).
`parts/` has a file for each part that is measured on its own, `peers/` one for each peer.
"""
