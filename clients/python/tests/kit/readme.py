"""The README of the guard: its commands and its examples, in order."""

import re
from pathlib import Path

_README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = re.findall(r"```sh\n(.*?)```", _README, re.DOTALL)
EXAMPLES = re.findall(r"```python\n(.*?)```", _README, re.DOTALL)
