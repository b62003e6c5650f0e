"""The table of faults, and load while one of them happens."""
