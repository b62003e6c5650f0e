"""`python -m tests.faults` writes docs/faults.md from tests/faults/faults.yaml."""

from tests.kit.faults.table import FAULTS, PAGE, page

if __name__ == "__main__":
    PAGE.write_text(page(FAULTS), encoding="utf-8")
