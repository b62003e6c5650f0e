"""Foreign suites that hold the listener against the specifications of its protocols.

`make h2spec` and `make connect-conformance` build them from tools/, where Go pins them by hash.
"""
