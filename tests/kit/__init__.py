"""Helpers that tests share.

The modules at the top serve every room: processes (`server`, `sidecar`, `prefork`), databases
(`databases`, `emptied`, `clusters`), networks (`proxy`, `ports`), tokens, time (`stall`, `waiting`,
`stepped_clock`, `soak`), wrong compilers (`mutants`) and the school of the examples. The rooms
below hold what tests of one room of `pdp` need, and tests of others borrow. A test module never
imports another one: `tests/test_imports.py`.
"""
